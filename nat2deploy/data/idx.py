"""The idx format of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nat2deploy.errors import UserError

_LIMIT = 2**31
_BYTE = 8


def read_idx(path: Path) -> Tensor:
    """Return the uint8 tensor that an idx file holds.

    Raises:
        UserError: missing, damaged, truncated, not idx, or not of bytes.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError as error:
        raise UserError(f"no idx file at {path}; check the folder") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"idx file {path} cannot be unpacked ({error}); fetch it again") from error
    return _parse(data, path)


def _parse(data: bytes, path: Path) -> Tensor:
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _BYTE or not 1 <= data[3] <= 4:
        raise UserError(f"{path} is no idx file of bytes; fetch it again")
    axes = data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise UserError(f"idx file {path} ends within its header; fetch it again")
    shape = struct.unpack(f">{axes}I", data[4:start])
    size = math.prod(shape)
    if size > _LIMIT or len(data) - start != size:
        raise UserError(
            f"idx file {path} holds {len(data) - start} bytes where its header says {size}; fetch it again"
        )
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())
