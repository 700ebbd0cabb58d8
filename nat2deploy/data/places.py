"""Where data sets are looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from nat2deploy.errors import UserError


def expand(given: str) -> Path:
    """Return the path that a user wrote, with ``~`` and ``~name`` resolved.

    Raises:
        UserError: the home folder that it names is unknown.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise UserError(f"no home folder is known for '{given}'; write the whole path") from error


def at_home(given: str) -> str:
    """Return a path or a name as it is given, but one that begins with ``~`` as the path that it means.

    Raises:
        UserError: the home folder that it names is unknown.
    """
    return str(expand(given)) if given.startswith("~") else given


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that this user can see; False for names that no system takes."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def candidates(given: str | None, *folders: str, system: Sequence[str] = ()) -> list[Path]:
    """Folders to try in order: ``given`` and ``folders`` in it alone, or ``folders`` under each usual root.

    Roots: ``$NAT2DEPLOY_DATA``, the user's cache of nat2deploy, ``./data`` and ``~/data``; then the
    ``system`` folders, as they are.

    Raises:
        UserError: ``given`` or ``$NAT2DEPLOY_DATA`` names an unknown home folder.
    """
    if given is not None:
        root = expand(given)
        return [root, *(root / folder for folder in folders)]
    own = os.environ.get("NAT2DEPLOY_DATA")
    roots = [Path(platformdirs.user_cache_dir("nat2deploy")), Path("data"), *_home_data()]
    if own:
        roots.insert(0, expand(own))
    return [root / folder for root in roots for folder in folders] + [Path(place) for place in system]


def find(name: str, places: Sequence[Path], files: Sequence[str], how: str) -> dict[str, Path]:
    """Return file name to path for the first place that has all ``files`` (or the same with ``.gz``).

    Raises:
        UserError: no place has them all; says where it looked, what was missing where there were some, and
            ``how`` to get them.
    """
    lacking = ""
    for place in places:
        found = {}
        for file in files:
            path = next((p for p in (place / file, place / f"{file}.gz") if _is_file(p)), None)
            if path is not None:
                found[file] = path
        if len(found) == len(files):
            return found
        if found and not lacking:
            missing = next(file for file in files if file not in found)
            lacking = f"; {place} lacks {missing}"
    looked = ", ".join(str(place) for place in places)
    raise UserError(f"data set {name} is not here (looked in {looked}{lacking}); {how}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or a folder above it that may not be entered
        return False


def _home_data() -> list[Path]:
    try:
        return [Path.home() / "data"]
    except RuntimeError:  # a user without a home, as in some containers
        return []
