"""Super-networks that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.errors import UserError

_FOLDER = Path(__file__).parent / "shipped"


def shipped_supernets() -> dict[str, Path]:
    """The file of each shipped super-network, by name; its model card stands beside it."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def find_supernet(spec: str | Path) -> Path:
    """Return the file of a super-network that is given by its path or by a shipped one's name.

    Raises:
        UserError: neither.
    """
    path = Path(spec)
    shipped = shipped_supernets()
    if not path.is_file() and str(spec) in shipped:
        return shipped[str(spec)]
    if not path.is_file():
        raise UserError(
            f"no super-network {spec}; give a file of `nat2deploy train`, or one that is shipped: "
            f"{', '.join(shipped)}"
        )
    return path
