"""The reference of a bundle: real images and what PyTorch said about them, to check an engine anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nat2deploy.deploy.parity import Floats
from nat2deploy.errors import UserError

REFERENCE_NAME = "reference.npz"


def save_reference(path: Path, images: Tensor, logits: Floats) -> None:
    """Write images, uint8 [N, C, H, W], as they came from the data set, and logits [N, classes]."""
    np.savez_compressed(path, images=images.numpy(), logits=logits)


def load_reference(path: Path) -> tuple[Tensor, Floats]:
    """Read what ``save_reference`` wrote.

    Raises:
        UserError: missing, damaged, or not arrays of these kinds.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, logits = stored["images"], stored["logits"]
    except Exception as error:  # numpy, zipfile and zlib raise a dozen classes
        raise UserError(f"reference {path} cannot be read ({error}); export the bundle again") from error
    fits = images.dtype == np.uint8 and logits.dtype == np.float32 and images.ndim == 4 and logits.ndim == 2
    if not fits or not 0 < len(images) == len(logits):
        raise UserError(f"reference {path} does not hold images and logits; export the bundle again")
    return torch.from_numpy(images), logits
