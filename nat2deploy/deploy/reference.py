"""The reference of a bundle: real images and what PyTorch said about them, to check an engine anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nat2deploy.deploy.parity import Floats
from nat2deploy.errors import UserError

REFERENCE_NAME = "reference.npz"


def save_reference(path: Path, images: Tensor, expected: Mapping[str, Floats]) -> None:
    """Write images, uint8 [N, C, H, W], as they came from the data set, and what PyTorch said about them.

    Args:
        path: the file.
        images: of the data set.
        expected: ``logits`` [N, classes]; of stages also each exit's answers, ``exits`` [exits, N, classes].
    """
    np.savez_compressed(path, allow_pickle=False, images=images.numpy(), **expected)


def load_reference(path: Path, exits: int | None = None) -> tuple[Tensor, Floats]:
    """Read images and logits that ``save_reference`` wrote; of stages those of all ``exits``.

    Raises:
        UserError: missing, damaged, or not arrays of these kinds.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, logits = stored["images"], stored["logits" if exits is None else "exits"]
    except Exception as error:  # numpy, zipfile and zlib raise a dozen classes
        raise UserError(f"reference {path} cannot be read ({error}); export the bundle again") from error
    fits = images.dtype == np.uint8 and logits.dtype == np.float32 and images.ndim == 4
    wanted = (len(images),) if exits is None else (exits, len(images))
    if not fits or logits.shape[:-1] != wanted or len(images) == 0:
        raise UserError(f"reference {path} does not hold images and logits; export the bundle again")
    return torch.from_numpy(images), logits
