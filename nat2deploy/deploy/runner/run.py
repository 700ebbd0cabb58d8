"""Classify images with the network of this bundle; needs Python 3.9, numpy and its engine.

`python run.py --help` says what it can do. The program itself is in the folder runner.
"""

# In words that any Python reads, so that an old one can say that it is too old.
# mypy: ignore-errors
import sys

PACKAGE = "bundle_runner"


def fail(line):
    """Print one line and exit with code 2."""
    sys.stderr.write("run.py: %s\n" % line)
    sys.exit(2)


def damaged(folder):
    """Return a file of the program that is not the manifest's; empty where there is none."""
    import hashlib
    import json

    try:
        files = json.loads((folder / "manifest.json").read_bytes().decode("utf-8"))["files"]
        for name in sorted(one for one in files if one.startswith("runner/")):
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != files[name]:
                return name
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # what is wrong with the manifest is said elsewhere
    return ""


def load():
    """Import the program from the folder beside this file, and return its command line."""
    from importlib.machinery import SourceFileLoader
    from importlib.util import spec_from_file_location
    from pathlib import Path

    place = Path(__file__).resolve().parent / "runner"

    class Source(SourceFileLoader):
        """Reads the source alone: a copy in __pycache__ is in no manifest, so none is read or written."""

        def path_stats(self, path):
            raise OSError(path)

    class Finder:
        """Finds the program's modules in that folder and nothing else there."""

        def find_spec(self, name, path=None, target=None):
            package, _, module = name.partition(".")
            if package != PACKAGE:
                return None
            source = str(place / ((module or "__init__") + ".py"))
            inside = None if module else [str(place)]
            loader = Source(name, source)
            return spec_from_file_location(name, source, loader=loader, submodule_search_locations=inside)

    sys.meta_path.insert(0, Finder())
    try:
        from bundle_runner.program import main
    except OSError as error:
        fail("%s: %s; export the bundle again" % (error.filename, error.strerror))
    except Exception as error:
        name = damaged(place.parent)
        if name:
            fail("%s: changed (hash differs); export the bundle again" % (place.parent / name))
        if not isinstance(error, ImportError):
            raise
        fail("%s; run `pip install numpy onnxruntime`, or for another engine what README.txt says" % error)
    return main


def start(arguments=None):
    """Run the command line on the bundle that this file lies in; returns the exit code."""
    if sys.version_info < (3, 9):
        fail("Python %d.%d is too old, 3.9 or newer is needed" % sys.version_info[:2])
    from pathlib import Path

    try:
        return load()(Path(__file__).resolve().parent, arguments)
    except KeyboardInterrupt:
        sys.stderr.write("run.py: interrupted\n")
        return 130


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(start())
