"""Backends, surrogates and policies that others add, by name: from installed packages or from single files.

A package names each in its metadata, under the entry-point group of its kind, such as
``nat2deploy.surrogates``. A file calls ``register``, and is named in the environment variable
``NAT2DEPLOY_PLUGINS`` (several with the system's path separator between). Either is imported when a name is
looked up that nat2deploy itself does not have, or when all names are listed, and not before. Configurations
and other files hold names only, so reading one runs no code that its reader did not install or name.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from nat2deploy.errors import UserError
from nat2deploy.nearest import choice

T = TypeVar("T")

KINDS = ("backend", "surrogate", "initialisation", "update", "subset", "distribution", "searcher")
"""What can be added; the entry-point group of each is ``nat2deploy.`` and its plural."""
VARIABLE = "NAT2DEPLOY_PLUGINS"

_registered: dict[tuple[str, str], Any] = {}


class Registry(dict[str, T]):
    """What nat2deploy itself has of a kind; plug-ins' are found by indexing, too.

    Args:
        kind: one of ``KINDS``.
        contract: what a plug-in's must be: a subclass or an instance of this.
        own: by name.
    """

    def __init__(self, kind: str, contract: type, own: Mapping[str, T]) -> None:
        super().__init__(own)
        self.kind = kind
        self.contract = contract

    def __missing__(self, name: str) -> T:
        found: T = load_plugin(self.kind, name, self.contract)
        return found


def register(kind: str, name: str, value: Any) -> None:
    """Add a plug-in of this process.

    Raises:
        UserError: no such kind, or a name that cannot be written in a configuration.
    """
    if kind not in KINDS:
        raise UserError(f"plug-ins: no kind '{kind}'; {choice(kind, KINDS)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UserError(f"plug-ins: a {kind} cannot be called '{name[:80]}'; use letters, digits, . - and _")
    _registered[kind, name] = value


def known(kind: str, own: Iterable[str]) -> Callable[[str], str]:
    """Return a check that a name is one of ``own`` or a plug-in's.

    It returns the name, and raises a ValueError that says the nearest.
    """
    own = tuple(own)

    def check(name: str) -> str:
        if name in own:
            return name
        try:
            added = plugin_names(kind, own)
        except UserError as error:
            raise ValueError(str(error)) from error
        if name not in added:
            raise ValueError(f"no {kind} '{name[:80]}'; {choice(name, (*own, *added))}")
        return name

    return check


def plugin_names(kind: str, own: Iterable[str] = ()) -> list[str]:
    """Return the names that plug-ins add to ``own``.

    Raises:
        UserError: a file that cannot be loaded, or a plug-in with a name of nat2deploy's own.
    """
    _load_files(os.environ.get(VARIABLE, ""))
    names = sorted({*(name for one, name in _registered if one == kind), *_offered(kind)})
    taken = set(names) & set(own)
    if taken:
        name = min(taken)
        raise UserError(f"plug-ins: {kind} '{name}' of {_source(kind, name)} is nat2deploy's own; rename it")
    return names


def load_plugin(kind: str, name: str, contract: type) -> Any:
    """Return what a plug-in offers by a name, which must be a subclass or an instance of ``contract``.

    Raises:
        UserError: no such name, or a plug-in that cannot be loaded or offers something else.
    """
    if name not in plugin_names(kind):
        raise UserError(
            f"no {kind} '{name[:80]}'; install the package that brings it, or name its file in ${VARIABLE}"
        )
    value = _registered.get((kind, name))
    if value is None:
        try:
            value = _offered(kind)[name].load()
        except Exception as error:  # a plug-in may fail in any way
            raise UserError(
                f"{kind} '{name}' of {_source(kind, name)} cannot be loaded: {_words(error)}"
            ) from error
    if not (isinstance(value, contract) or (isinstance(value, type) and issubclass(value, contract))):
        raise UserError(
            f"{kind} '{name}' of {_source(kind, name)} is no {contract.__name__}; see docs/how-to/extend.md"
        )
    return value


def plugin_version(kind: str, name: str) -> str:
    """Return the version of the package that a plug-in comes from, empty for a file's."""
    offered = _offered(kind).get(name)
    return "" if offered is None or offered.dist is None else offered.dist.version


def _offered(kind: str) -> dict[str, EntryPoint]:
    return {one.name: one for one in entry_points(group=f"nat2deploy.{kind}s")}


def _source(kind: str, name: str) -> str:
    offered = _offered(kind).get(name)
    if offered is None or (kind, name) in _registered:
        return f"${VARIABLE}" if os.environ.get(VARIABLE) else "this program"
    return f"package {offered.dist.name}" if offered.dist is not None else offered.value


@lru_cache(maxsize=1)
def _load_files(places: str) -> None:
    for place in filter(None, places.split(os.pathsep)):
        path = Path(place)
        name = f"nat2deploy_plugin_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
        spec = importlib.util.spec_from_file_location(name, path)
        if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
            raise UserError(f"${VARIABLE} names {place}, which is no Python file; mend the path")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except UserError:
            raise
        except Exception as error:  # a plug-in may fail in any way
            raise UserError(f"plug-in {place} cannot be loaded: {_words(error)}") from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
