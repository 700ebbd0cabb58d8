"""Measure networks on this device, with Python 3.9 or newer, numpy and onnxruntime.

Made by nat2deploy from its own modules, whose text stands below. `python measure.py` measures what lies
beside this file and writes result.json; stopped, it goes on where it was when it is started again.
"""

# In words that any Python reads, also Python 2, so that an old one can say that it is too old.
# mypy: ignore-errors
import sys

SOURCES = {}  # the name of each module to its text; filled when the file is made
PACKAGES = ()


def fail(line):
    sys.stderr.write("error: %s\n" % line)
    sys.exit(2)


def start():
    if sys.version_info < (3, 9):
        fail("Python %d.%d is too old, 3.9 or newer is needed" % sys.version_info[:2])
    from importlib import util
    from pathlib import Path

    class Modules:
        """Finds and loads the modules of this file; by its name, an installed nat2deploy is left alone."""

        def find_spec(self, name, path=None, target=None):
            if name not in SOURCES:
                return None
            return util.spec_from_loader(name, self, origin=__file__, is_package=name in PACKAGES)

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            name = module.__name__
            code = compile(SOURCES[name], "%s of %s" % (name, __file__), "exec", dont_inherit=True)
            exec(code, module.__dict__)

    sys.meta_path.insert(0, Modules())
    try:
        import numpy  # noqa: F401
        import onnxruntime  # noqa: F401

        from nat2deploy.agent.program import main
    except ImportError as error:
        fail("%s; run `%s -m pip install numpy onnxruntime`" % (error, sys.executable))
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))


if __name__ == "__main__":
    start()
