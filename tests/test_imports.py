"""The arrows of the design: which part of the package may import which, and what stays unloaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LEAVES = (
    "errors",
    "files",
    "locks",
    "version",
    "progress",
    "launch",
    "batch_norm",
    "machine",
    "gpu",
    "clock_state",
    "shipped",
    "precision",
    "nearest",
    "plugins",
    "seed",
)
EVERYTHING_BUT_CLI = (
    *LEAVES,
    *("target", "space", "blocks", "supernet", "engines", "cost", "measure", "data", "training", "search"),
    *("remote", "deploy", "run", "report", "doctor", "search.budget"),
)

# Part of the package: what it may import, itself apart. The longest name that fits a module counts.
ALLOWED: dict[str, tuple[str, ...]] = {
    "errors": (),
    "version": (),
    "progress": (),
    "intervals": (),
    "launch": (),  # which process this is: asked by training, and by the command line before torch is loaded
    "batch_norm": (),  # under both blocks and supernet; training hands it the processes to normalise over
    "nearest": (),  # of names: asked by what reads files, and where names are looked up
    "files": ("errors", "nearest"),
    "locks": ("errors", "files"),
    "plugins": ("errors", "nearest"),  # registers that engines and search, and the target's names, are in
    "machine": (),  # asked by the target here, and by the agent on a device
    "gpu": ("errors",),
    "clock_state": (),  # part of the fingerprint, and of what a device says
    "shipped": (),  # names of files: asked by who reads them
    "seed": (),  # what can be one: asked by who reads settings
    "precision": (),  # a word for number formats: asked by space and target alike
    "target": ("errors", "files", "machine", "gpu", "clock_state", "shipped", "precision", "plugins"),
    "space": ("errors", "files", "precision"),
    "blocks": ("space", "errors", "batch_norm"),
    "supernet": ("space", "blocks", "errors", "files", "batch_norm"),
    "engines": (
        *("target", "precision", "machine", "gpu", "plugins", "errors", "files"),
        "deploy.runner.confidence",
    ),
    "cost": ("space", "target", "clock_state", "errors", "files", "version", "shipped", "precision"),
    "measure": (
        *("engines", "space", "target", "machine", "clock_state", "gpu", "blocks", "cost"),
        *("errors", "files", "version"),
    ),
    # Runs on a device where nat2deploy is not: what of measure and engines it takes stays light, by a test.
    "agent": ("errors", "machine", "engines", "measure"),
    "remote": (
        *("agent", "deploy", "measure", "engines", "cost", "space", "target", "blocks", "clock_state"),
        *("errors", "files", "version", "__init__"),
    ),
    "data": ("errors", "files", "nearest", "machine"),
    "training": (
        *("supernet", "space", "data", "blocks", "intervals"),
        *("errors", "files", "batch_norm", "launch", "precision"),
    ),
    "search": (
        *("space", "cost", "training", "supernet", "data", "search.budget"),
        *("errors", "files", "target", "precision", "version", "plugins", "seed"),
    ),
    "search.budget": ("cost", "errors"),  # what a limit means: asked by who reads a front, too
    # Reads a run's files: knows their formats and none of what made them.
    "report": ("space", "cost", "search.budget", "deploy.runner.expected", "errors", "files", "version"),
    "deploy": (
        "precision",
        "engines",
        "measure",
        "data",
        "target",
        "space",
        "errors",
        "files",
        "version",
        "intervals",
        "deploy.runner",
        "deploy.runner.confidence",
        "deploy.runner.expected",
    ),
    # Of the runner, what is fitted and timed before a bundle is made, and asked by who reads its evidence.
    "deploy.runner.confidence": (),
    "deploy.runner.expected": (),
    # Travels in the bundle, where nat2deploy is not installed.
    "deploy.runner": ("deploy.runner.confidence", "deploy.runner.expected"),
    "doctor": ("engines", "measure", "data", "cost", "target", "clock_state", "errors"),
    "run": EVERYTHING_BUT_CLI,
    "cli": (*EVERYTHING_BUT_CLI, "cli"),
    "__main__": ("cli",),
    "__init__": ("version",),
}

HEAVY = ("torch", "torchvision", "sklearn", "pymoo", "onnxruntime", "openvino", "onnx", "scipy", "fvcore")


def part_of(module: str) -> str | None:
    """The longest part in the table that a module (without ``nat2deploy.``) belongs to."""
    names = module.split(".")
    parts = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((part for part in parts if part in ALLOWED), None)


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import of ours, lazy, for types only, relative or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "nat2deploy":
                    yield node.lineno, alias.name.partition(".")[2] or "__init__"
        elif isinstance(node, ast.ImportFrom):
            names = (node.module or "").split(".") if node.module else []
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                names = ["nat2deploy", *here[: len(here) - node.level + 1], *names]
            if names[:1] == ["nat2deploy"] and len(names) > 1:
                # `from nat2deploy.deploy import runner` may name a module too
                yield from ((node.lineno, ".".join([*names[1:], alias.name])) for alias in node.names)
            elif names[:1] == ["nat2deploy"]:
                for alias in node.names:
                    yield node.lineno, alias.name if part_of(alias.name) else "__init__"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and str(argument.value).startswith("nat2deploy."):
                    yield node.lineno, str(argument.value).partition(".")[2]


def violations(package: Path) -> list[str]:
    """Every import in ``package`` (a folder called nat2deploy) that the table does not allow."""
    found = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).with_suffix("")
        is_package = place.name == "__init__" and len(place.parts) > 1
        module = ".".join(place.parts[:-1] if is_package else place.parts)
        part = part_of(module)
        if part is None:
            found.append(f"{module}: not in the table of parts")
            continue
        for line, imported in imports(ast.parse(path.read_text(encoding="utf-8")), module, is_package):
            other = part_of(imported)
            if other is None or (other != part and other not in ALLOWED[part]):
                found.append(f"{module}:{line}: {part} must not import {other or imported}")
    return found


def test_the_package_keeps_to_the_arrows(repository):
    package = repository / "nat2deploy"
    assert (package / "space" / "search_space.py").is_file()
    assert violations(package) == []


def test_the_table_has_no_circle():
    """Parts in an order in which each imports only earlier ones exist; else the arrows mean nothing."""
    left = {part: {o for o in others if o != part} for part, others in ALLOWED.items()}
    while free := [part for part, others in left.items() if not others & left.keys()]:
        for part in free:
            del left[part]
    assert left == {}


@pytest.mark.parametrize(
    ("place", "text", "wanted"),
    [
        (
            "space/a.py",
            "from nat2deploy.supernet.network import SuperNetwork",
            "space must not import supernet",
        ),
        ("space/a.py", "import nat2deploy.training.loop", "space must not import training"),
        ("space/a.py", "import nat2deploy.blocks as b", "space must not import blocks"),
        ("space/a.py", "from nat2deploy import cost", "space must not import cost"),
        ("space/a.py", "from ..engines.base import Engine", "space must not import engines"),
        ("space/a.py", "from .. import engines", "space must not import engines"),
        ("space/__init__.py", "from ..engines import base", "space must not import engines"),
        ("space/deep/a.py", "from ...engines import base", "space must not import engines"),
        ("errors.py", "from nat2deploy.files import parse", "errors must not import files"),
        (
            "engines/a.py",
            "def f():\n    from nat2deploy.measure import clock",
            "engines must not import measure",
        ),
        (
            "data/a.py",
            "import importlib\nimportlib.import_module('nat2deploy.cli')",
            "data must not import cli",
        ),
        (
            "cost/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nat2deploy.search import nat2",
            "cost must not import search",
        ),
        ("run/a.py", "from nat2deploy.cli.app import main", "run must not import cli"),
        ("run.py", "from nat2deploy.cli.app import main", "run must not import cli"),
        (
            "deploy/runner/a.py",
            "from nat2deploy.errors import UserError",
            "deploy.runner must not import errors",
        ),
        ("space/a.py", "from nat2deploy.secrets import x", "space must not import secrets"),
        ("novel/a.py", "", "not in the table of parts"),
    ],
)
def test_the_check_finds_a_planted_violation(tmp_path, place, text, wanted):
    path = tmp_path / "nat2deploy" / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = violations(tmp_path / "nat2deploy")
    assert len(found) == 1
    assert wanted in found[0]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("space/a.py", "from nat2deploy.errors import UserError\nfrom nat2deploy.space.b import c"),
        ("space/a.py", "from . import b\nfrom .b import c\nfrom ..files import parse\nimport torch"),
        ("space/__init__.py", "from . import b\nfrom .b import c"),
        ("deploy/a.py", "from nat2deploy.deploy import runner\nfrom nat2deploy import version"),
        ("deploy/runner/a.py", "import numpy\nfrom nat2deployed import x\nimport nat2deployed"),
        ("run/a.py", "from nat2deploy.search import nat2\nfrom nat2deploy.progress import Report"),
        ("cli/a.py", "from nat2deploy.run.search import search\nimport nat2deploy.cli.b"),
    ],
)
def test_the_check_lets_allowed_imports_pass(tmp_path, place, text):
    path = tmp_path / "nat2deploy" / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert violations(tmp_path / "nat2deploy") == []


def loaded_after(statements: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter holds after some statements."""
    code = f"{statements}\nimport sys\nprint('LOADED', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_watch_on_heavy_packages_works():
    assert loaded_after("import sklearn") >= {"sklearn"}


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import nat2deploy; assert nat2deploy.__version__") == set()


def test_what_neither_profiles_nor_searches_loads_nothing_for_it():
    loaded = loaded_after("import nat2deploy.run.finetune, nat2deploy.run.export, nat2deploy.run.train")
    assert not loaded & {"scipy", "sklearn", "pymoo"}


@pytest.mark.parametrize("verb", [[], ["search"]])
def test_help_loads_nothing_heavy(verb):
    run = (
        "import sys\n"
        f"sys.argv = ['nat2deploy', *{verb!r}, '--help']\n"
        "from nat2deploy.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert loaded_after(run) == set()
