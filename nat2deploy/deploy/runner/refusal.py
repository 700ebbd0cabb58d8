"""What the runner refuses: bad input in one line, and images that would not fit into the device's memory."""

from __future__ import annotations

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 64_000_000
MAX_SIDE = 16_384
MAX_THREADS = 1024  # each has a stack: a million of them would take a device's memory


class BadInput(Exception):
    """Something the user can mend, in one line."""


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Refuse empty images, those that would not fit into an edge device's memory, and very long ones.

    A PNG is decoded in a step a row and a column, whatever the other side: a file of kilobytes could take
    minutes.
    """
    if width < 1 or height < 1 or width * height > most:
        raise BadInput(f"{width} x {height} pixels; give 1 to {most // 10**6} million")
    if max(width, height) > MAX_SIDE:
        raise BadInput(f"{width} x {height} pixels; give sides of up to {MAX_SIDE}")
