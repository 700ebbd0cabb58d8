"""What the runner refuses: bad input in one line, and images that would not fit into the device's memory."""

from __future__ import annotations

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 64_000_000


class BadInput(Exception):
    """Something the user can mend, in one line."""


def check_size(width: int, height: int) -> None:
    """Refuse empty images and those that would not fit into an edge device's memory."""
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise BadInput(f"{width} x {height} pixels; give 1 to {MAX_PIXELS // 10**6} million")
