"""The idx format of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import torch
from torch import Tensor

from nat2deploy.errors import UserError

_LIMIT_BYTES = 2**30
_CHUNK_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 8


def read_idx(path: Path) -> Tensor:
    """Return the uint8 tensor, of one to four axes, that an idx file holds.

    Gzip is told by the file's first bytes or by the suffix ``.gz``. No more is unpacked than the header
    announces, so a small damaged file cannot fill the memory.

    Raises:
        UserError: missing, damaged, truncated, empty, not idx, or not of bytes.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP or path.suffix == ".gz"
            raw.seek(0)
            if not packed:
                return _parse(raw, path)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse(stream, path)
    except FileNotFoundError as error:
        raise UserError(f"no idx file at {path}; check the folder") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"idx file {path} cannot be read ({error}); fetch it again") from error


def _parse(stream: BufferedIOBase, path: Path) -> Tensor:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTE or not 1 <= head[3] <= 4:
        raise UserError(f"{path} is no idx file of bytes; fetch it again")
    axes = head[3]
    sizes = stream.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise UserError(f"idx file {path} ends within its header; fetch it again")
    shape = struct.unpack(f">{axes}I", sizes)
    size = math.prod(shape)
    if not 1 <= size <= _LIMIT_BYTES:
        raise UserError(f"idx file {path} announces {size} bytes, not 1 to {_LIMIT_BYTES}; fetch it again")
    data = bytearray()
    while len(data) <= size and (part := stream.read(min(_CHUNK_BYTES, size + 1 - len(data)))):
        data += part
    if len(data) != size:
        held = "more" if len(data) > size else str(len(data))
        raise UserError(f"idx file {path} holds {held} bytes where its header says {size}; fetch it again")
    return torch.frombuffer(data, dtype=torch.uint8).reshape(shape)
