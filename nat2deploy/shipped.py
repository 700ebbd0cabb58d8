"""Files that come with the package, found by their name alone: targets' profiles and measured tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Folder = Literal["profiles", "latency_tables"]

_SUFFIX: dict[Folder, str] = {"profiles": ".toml", "latency_tables": ".json"}
_PACKAGE = Path(__file__).parent


def shipped_files(folder: Folder) -> list[Path]:
    """Return the files of ``folder``: of the installed package, or of the checkout that it runs from."""
    return sorted(_place(folder).glob(f"*{_SUFFIX[folder]}"), key=lambda path: path.stem)


def find_file(path: Path, folder: Folder) -> Path:
    """Return ``path``, or where there is none and it is a shipped file's bare name, that file."""
    if path.name != str(path) or exists(path):
        return path
    shipped = _place(folder) / f"{path.name.removesuffix(_SUFFIX[folder])}{_SUFFIX[folder]}"
    return shipped if exists(shipped) else path


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False for names that no system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _place(folder: Folder) -> Path:
    beside = _PACKAGE.parent
    # An installed package holds the folders; beside it lie those of others.
    return (beside if (beside / "pyproject.toml").is_file() else _PACKAGE) / folder
