"""The agent as one file, made of the package's own modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nat2deploy

PROGRAM = "nat2deploy.agent.program"
_LAUNCHER = "nat2deploy.agent.launcher"
_ROOT = Path(nat2deploy.__file__).parent


def agent_source() -> str:
    """Return the text of ``measure.py``: the launcher, and every module that the agent's program imports.

    The same version of the package gives the same text.
    """
    modules = agent_modules()
    sources = "".join(f"    {name!r}: r'''{_text(name)}''',\n" for name in modules)
    packages = tuple(name for name in modules if _path(name).name == "__init__.py")
    launcher = _text(_LAUNCHER)
    for empty, filled in (
        ("SOURCES = {}", f"SOURCES = {{\n{sources}}}"),
        ("PACKAGES = ()", f"PACKAGES = {packages!r}"),
    ):
        assert launcher.count(empty) == 1
        launcher = launcher.replace(empty, filled)
    return launcher


def agent_modules() -> tuple[str, ...]:
    """Return the names of the agent's program, all of ours that it imports, and the packages around them."""
    found: set[str] = set()
    waiting = {PROGRAM}
    while waiting:
        name = waiting.pop()
        found.add(name)
        parent = name.rpartition(".")[0]
        wanted = {parent} if parent else set()
        wanted.update(module for module in imports(_text(name)) if _path(module).exists())
        waiting |= {module for module in wanted if module.split(".")[0] == "nat2deploy"} - found
    return tuple(sorted(found))


def imports(text: str) -> Iterator[str]:
    """Yield the modules that a module's text imports, anywhere in it, and what it imports from them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _text(name: str) -> str:
    text = _path(name).read_text(encoding="utf-8")
    if "'''" in text:
        raise ValueError(f"{name} holds ''' and so cannot travel in the agent; write it with double quotes")
    return text


def _path(name: str) -> Path:
    place = _ROOT.joinpath(*name.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
