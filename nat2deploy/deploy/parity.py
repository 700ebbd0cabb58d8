"""Whether an engine says what PyTorch says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nat2deploy.deploy.manifest import Parity
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError
from nat2deploy.precision import Precision

# By precision: the largest difference as a share of the largest logit, and the least share of images with the
# same first class. Rounding to 8 bits moves logits by some per cent, a wrong calibration by far more.
MAX_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.05, "int8": 0.25}
LEAST_AGREEMENT: dict[Precision, float] = {"fp32": 0.99, "fp16": 0.98, "bf16": 0.97, "int8": 0.9}

Floats = NDArray[np.float32]


def run_all(engine: Engine, images: Floats) -> Floats:
    """Run any number of preprocessed images [N, C, H, W] in batches; return logits [N, classes].

    The last batch is filled up with zeros for an engine that takes no other one.
    """
    batch = engine.run_batch
    outputs = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        if len(part) < batch and not engine.any_batch:
            part = np.concatenate([part, np.zeros((batch - len(part), *images.shape[1:]), np.float32)])
        outputs.append(engine.run(part))
    return np.concatenate(outputs)[: len(images)]


def compare(found: Floats, expected: Floats) -> Parity:
    """Compare an engine's logits [N, classes] with PyTorch's.

    Raises:
        UserError: other shapes, or logits that are not finite or all zero.
    """
    if found.shape != expected.shape:
        raise UserError(f"the engine gives {found.shape}, PyTorch {expected.shape}; export the network again")
    scale = float(np.abs(expected).max()) if np.isfinite(expected).all() and np.isfinite(found).all() else 0.0
    if scale == 0.0:
        raise UserError("the network's outputs are all zero or not finite; train it before it is exported")
    difference = float(np.abs(found.astype(np.float64) - expected).max()) / scale
    agreement = float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1)))
    return Parity(images=len(found), max_difference=difference, top1_agreement=agreement)


def agrees(parity: Parity, precision: Precision = "fp32") -> bool:
    """Whether the engine says what PyTorch says, as far as ``precision`` lets it.

    fp32: within 0.1 % of the largest logit, same class in 99 %; fp16: within 2 %, 98 %; bf16: within
    5 %, 97 %; int8: within 25 %, 90 %.
    """
    close = parity.max_difference <= MAX_DIFFERENCE[precision]
    return close and parity.top1_agreement >= LEAST_AGREEMENT[precision]


def describe(parity: Parity) -> str:
    """One line for people."""
    return (
        f"largest difference {parity.max_difference:.1e} of the largest logit, same class in "
        f"{parity.top1_agreement:.1%} of {parity.images} images"
    )
