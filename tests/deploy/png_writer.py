"""A PNG writer that does what it is told: any depth, colour type, filter and chunk, valid or not."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int, kind: int, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))


def write_png(
    samples: NDArray[np.integer], depth: int, kind: int, filters: list[int], palette: bytes = b""
) -> bytes:
    """Encode samples [H, W, C] of ``depth`` bits; row y gets filter ``filters[y % len(filters)]``."""
    height, width, channels = samples.shape
    if depth == 16:
        rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    elif depth == 8:
        rows = samples.astype(np.uint8).reshape(height, -1)
    else:
        bits = (samples.reshape(height, width, 1) >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    unit = max(depth * channels // 8, 1)
    raw = b"".join(
        bytes([filters[y % len(filters)]])
        + _filter(rows[y], rows[y - 1] if y else np.zeros_like(rows[0]), unit, filters[y % len(filters)])
        for y in range(height)
    )
    packed = zlib.compress(raw)
    half = len(packed) // 2
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            header(width, height, depth, kind),
            chunk(b"tEXt", b"Comment\0made by a test"),
            chunk(b"PLTE", palette) if palette else b"",
            chunk(b"IDAT", packed[:half]),
            chunk(b"IDAT", packed[half:]),
            chunk(b"IEND", b""),
        )
    )


def _filter(row: NDArray[np.uint8], above: NDArray[np.uint8], unit: int, kind: int) -> bytes:
    """Filter one row by the definition, a byte at a time."""
    out = bytearray()
    for x, value in enumerate(row.tolist()):
        a = int(row[x - unit]) if x >= unit else 0
        b = int(above[x])
        c = int(above[x - unit]) if x >= unit else 0
        p = a + b - c
        nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
    return bytes(out)
