"""What the exits of a staged engine say about images, which of them answers, and whether PyTorch agrees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.exit_thresholds import confidences_of, leave
from nat2deploy.deploy.judging import inputs_of
from nat2deploy.deploy.manifest import Parity
from nat2deploy.deploy.parity import Floats, compare
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.errors import UserError

_CHUNK = 250


def run_exits(engine: StagedEngine, images: Floats) -> Floats:
    """Run all stages on any number of preprocessed images [N, C, H, W]; return [exits, N, classes].

    The last batch is filled up with zeros.
    """
    batch = engine.input_shape[0]
    padded = np.concatenate([images, np.zeros((-len(images) % batch, *images.shape[1:]), np.float32)])
    found = [engine.answers(padded[start : start + batch]) for start in range(0, len(padded), batch)]
    return np.concatenate(found, axis=1)[:, : len(images)]


def answers_of(engine: StagedEngine, preprocessing: Preprocessing, images: Tensor) -> Floats:
    """Return what each exit answers for uint8 [N, C, H, W]: [exits, N, classes]."""
    parts = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
    return np.concatenate([run_exits(engine, inputs_of(preprocessing, part)) for part in parts], axis=1)


def compare_exits(found: Floats, expected: Floats) -> Parity:
    """Compare the exits' logits [exits, N, classes] with PyTorch's: the worst of all exits.

    Raises:
        UserError: as ``compare``.
    """
    if found.shape != expected.shape:
        raise UserError(f"the engine gives {found.shape}, PyTorch {expected.shape}; export the network again")
    each = [compare(one, other) for one, other in zip(found, expected, strict=True)]
    return Parity(
        images=each[0].images,
        max_difference=max(one.max_difference for one in each),
        top1_agreement=min(one.top1_agreement for one in each),
    )


def decided(
    answers: Floats, confidence: str, thresholds: Sequence[float | None]
) -> tuple[NDArray[np.int64], tuple[float, ...]]:
    """Stop early: from answers [exits, N, classes] to the classes [N], and the share leaving at each exit."""
    exits = leave(confidences_of(answers[:-1], confidence), thresholds)
    classes = answers.argmax(axis=2)[exits, np.arange(answers.shape[1])]
    counts = np.bincount(exits, minlength=len(answers))
    return classes, tuple(float(share) for share in counts / len(exits))
