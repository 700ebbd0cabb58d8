"""PNG to pixels with numpy and zlib, for devices without Pillow (PNG specification, third edition)."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from .refusal import MAX_PIXELS, BadInput, check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

PNG = b"\x89PNG\r\n\x1a\n"
# Colour type to channels and allowed bits (PNG specification, third edition, table 11.1).
PNG_KINDS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}


def decode_png(data: bytes, most: int = MAX_PIXELS) -> Pixels:
    """Decode a PNG that is not interlaced, of ``most`` pixels or less."""
    header, palette, packed = png_parts(data)
    width, height, depth, kind, compression, filtering, interlaced = struct.unpack(">IIBBBBB", header)
    check_size(width, height, most)
    if kind not in PNG_KINDS or depth not in PNG_KINDS[kind][1] or compression or filtering or interlaced > 1:
        raise BadInput("the PNG header is not valid; save the image again")
    if interlaced:
        raise BadInput("interlaced PNG is not supported; save it without interlacing")
    channels = PNG_KINDS[kind][0]
    unit = max(depth * channels // 8, 1)
    row = (width * depth * channels + 7) // 8
    size = height * (row + 1)
    try:
        raw = zlib.decompressobj().decompress(packed, size)
    except zlib.error:
        raise BadInput("the PNG pixels are damaged; save the image again") from None
    if len(raw) < size:
        raise BadInput("the PNG is cut short; copy it again")
    lines = np.frombuffer(raw, np.uint8).reshape(height, row + 1)
    rows = unfilter(lines[:, 1:].reshape(height, row // unit, unit), lines[:, 0]).reshape(height, row)
    if depth < 8:
        bits = np.unpackbits(rows, axis=1)[:, : width * depth].reshape(height, width, depth)
        rows = np.packbits(bits, axis=2)[..., 0] >> (8 - depth)
    pixels = rows.reshape(height, width, channels, -1)[..., 0]
    if kind == 3:
        if len(palette) % 3 or int(pixels.max()) >= len(palette) // 3:
            raise BadInput("the PNG palette does not fit its pixels; save the image again")
        return np.frombuffer(palette, np.uint8).reshape(-1, 3)[pixels[..., 0]]
    if depth < 8:
        pixels = pixels * np.uint8(255 // (2**depth - 1))
    colours = pixels[..., : 3 if channels > 2 else 1]
    return np.ascontiguousarray(np.broadcast_to(colours, (height, width, 3)))


def png_parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return header, palette (empty without one) and compressed pixels, every checksum checked."""
    at, header, palette, packed = len(PNG), b"", b"", []
    while True:
        size, kind = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (1 << 32, b"")
        end = at + 8 + size
        if end + 4 > len(data):
            raise BadInput("the PNG is cut short; copy it again")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise BadInput("the PNG is damaged (a checksum differs); copy it again")
        body = data[at + 8 : end]
        if (kind == b"IHDR") == bool(header) or (kind == b"IHDR" and size != 13):
            raise BadInput("the PNG header is not valid; save the image again")
        if kind == b"IHDR":
            header = body
        elif kind == b"PLTE":
            palette = body
        elif kind == b"IDAT":
            packed.append(body)
        elif kind == b"IEND":
            return header, palette, b"".join(packed)
        elif not kind[0] & 32:
            raise BadInput("the PNG has an unknown critical chunk; save the image again")
        at = end + 4


def unfilter(filtered: Pixels, filters: Pixels) -> Pixels:
    """Undo the five PNG row filters of [H, W, bytes a pixel], ``filters`` [H].

    A pixel needs its left, upper and upper left neighbour, so all pixels with the same x + y can be done at
    once: H + W steps in numpy instead of H × W in Python. In the flat image with a border of zeros, such a
    diagonal is a slice with a step of one row less one pixel. Rows that need but one neighbour are quicker a
    row at a time.
    """
    if int(filters.max()) > 4:
        raise BadInput("the PNG pixels are damaged (no such filter); save the image again")
    height, width, unit = filtered.shape
    pitch = width + 1
    padded = np.zeros((height + 1, pitch, unit), np.uint8)
    padded[1:, 1:] = filtered
    if not filters.any():
        return padded[1:, 1:]
    if int(filters.max()) <= 2:
        for row in range(height):
            if filters[row] == 1:
                np.cumsum(padded[row + 1], axis=0, dtype=np.uint8, out=padded[row + 1])  # bytes wrap around
            elif filters[row] == 2:
                padded[row + 1] += padded[row]
        return padded[1:, 1:]
    flat, kinds = padded.reshape(-1, unit), filters[:, None]
    for step in range(height + width - 1):
        top, bottom = max(step - width + 1, 0), min(height - 1, step)
        first = pitch + 1 + step + top * width
        last = first + (bottom - top) * width + 1
        here = flat[first:last:width]
        sides = (flat[first - back : last - back : width] for back in (1, pitch, pitch + 1))
        left, up, corner = (side.astype(np.int16) for side in sides)
        far = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
        paeth = np.choose(np.argmin(far, axis=0), [left, up, corner])  # ties go to the first, as they must
        guesses = [np.zeros_like(left), left, up, (left + up) >> 1, paeth]
        here += np.choose(kinds[top : bottom + 1], guesses).astype(np.uint8)
    return padded[1:, 1:]
