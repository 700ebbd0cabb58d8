"""Where data sets are looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from nat2deploy.errors import UserError


def candidates(given: str | None, *folders: str, system: Sequence[str] = ()) -> list[Path]:
    """Folders to try in order: ``given`` alone, or ``folders`` under each usual root, then ``system`` ones.

    Roots: ``$NAT2DEPLOY_DATA``, the user's cache of nat2deploy, ``./data`` and ``~/data``.
    """
    if given is not None:
        root = Path(given).expanduser()
        return [root, *(root / folder for folder in folders)]
    roots = [Path(platformdirs.user_cache_dir("nat2deploy")), Path("data"), Path.home() / "data"]
    if "NAT2DEPLOY_DATA" in os.environ:
        roots.insert(0, Path(os.environ["NAT2DEPLOY_DATA"]))
    return [root / folder for root in roots for folder in folders] + [Path(place) for place in system]


def find(name: str, places: Sequence[Path], files: Sequence[str], how: str) -> dict[str, Path]:
    """Return file name to path for the first place that has all ``files`` (or the same with ``.gz``).

    Raises:
        UserError: no place has them; says where it looked and ``how`` to get them.
    """
    for place in places:
        found = {}
        for file in files:
            path = next((p for p in (place / file, place / f"{file}.gz") if p.is_file()), None)
            if path is not None:
                found[file] = path
        if len(found) == len(files):
            return found
    looked = ", ".join(str(place) for place in places)
    raise UserError(f"data set {name} is not here (looked in {looked}); {how}")
