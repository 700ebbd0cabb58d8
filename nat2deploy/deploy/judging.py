"""An engine on labelled images: how often is it right, and as often as PyTorch?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.manifest import AccuracyEvidence
from nat2deploy.deploy.parity import Floats, run_all
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UnfitNetworkError
from nat2deploy.precision import Precision

MAX_ACCURACY_DROP = 0.005
"""How much lower an engine's top-1 may be than PyTorch's in float, as a share; half a point."""
_LEAST_AGREEMENT = 0.999
_CHUNK = 250


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images of a split, uint8 [N, C, H, W], their targets int64 [N], and the data set's name."""

    dataset: str
    images: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class Promise:
    """The first class, int64 [N], that a network in 8 bits gives images, as a search simulates them."""

    classes: NDArray[np.int64]
    images: Labelled


def inputs_of(preprocessing: Preprocessing, images: Tensor) -> Floats:
    """From uint8 [N, C, H, W] to network input, float32 [N, 3, r, r]."""
    return np.ascontiguousarray(preprocessing.apply(images.cpu()).numpy(), dtype=np.float32)


def first_classes(engine: Engine, preprocessing: Preprocessing, images: Tensor) -> NDArray[np.int64]:
    """Return the first class that an engine gives each of uint8 [N, C, H, W], as int64 [N]."""
    batch = engine.run_batch
    size = max(1, _CHUNK // batch) * batch  # of whole batches: but for the last, none is filled up
    parts = (images[start : start + size] for start in range(0, len(images), size))
    return np.concatenate([run_all(engine, inputs_of(preprocessing, part)).argmax(axis=1) for part in parts])


def judge_engine(
    engine: Engine,
    eager: Engine,
    preprocessing: Preprocessing,
    split: Labelled,
    precision: Precision,
    max_accuracy_drop: float,
) -> AccuracyEvidence:
    """Judge an engine on the test split, beside PyTorch in float.

    Args:
        engine: what is judged.
        eager: the same network in PyTorch, or as it was before it was tuned for 8 bits.
        preprocessing: of both.
        split: the test split.
        precision: the engine's.
        max_accuracy_drop: how much lower its top-1 may be, where half a point is not allowed more.

    Raises:
        UnfitNetworkError: in fp32 another first class than PyTorch in over 0.1 % of the images; in other
            precisions a top-1 that is too much lower.
    """
    expected, found = (first_classes(one, preprocessing, split.images) for one in (eager, engine))
    return judge_classes(found, expected, split, precision, max_accuracy_drop)


def judge_classes(
    found: NDArray[np.int64],
    expected: NDArray[np.int64],
    split: Labelled,
    precision: Precision,
    max_accuracy_drop: float,
) -> AccuracyEvidence:
    """Judge an engine's first classes [N] of a split beside PyTorch's; else as ``judge_engine``."""
    targets = split.targets.cpu().numpy()
    top1, float_top1 = float(np.mean(found == targets)), float(np.mean(expected == targets))
    agreement = float(np.mean(found == expected))
    told = (
        f"{top1:.2%} on the {len(targets)} test images of {split.dataset}, PyTorch in float {float_top1:.2%}"
    )
    if precision == "fp32" and agreement < _LEAST_AGREEMENT:
        raise UnfitNetworkError(
            f"the engine gives another first class than PyTorch in {1 - agreement:.2%} of the test images "
            f"({told}); look for an operator that it computes otherwise"
        )
    allowed = max(MAX_ACCURACY_DROP, max_accuracy_drop)
    if float_top1 - top1 > allowed + 1e-9:
        hint = (
            "lower --max-accuracy-drop, so that more layers stay in float, take more --calibration-images or "
            "another --calibration-method; with --qat-epochs another --qat-learning-rate"
            if precision == "int8"
            else "export in fp32"
        )
        raise UnfitNetworkError(
            f"the engine in {precision} loses {100 * (float_top1 - top1):.2f} points of accuracy "
            f"({told}); {hint}"
        )
    return AccuracyEvidence(
        dataset=split.dataset, top1=top1, images=len(targets), float_top1=float_top1, agreement=agreement
    )


def check_promise(engine: Engine, preprocessing: Preprocessing, promise: Promise) -> None:
    """Check that an engine in 8 bits is as accurate as their simulation was.

    It may be half a point worse, and two standard deviations of what chance makes of that: it decides which
    of the two is right where only one of them is.

    Raises:
        UnfitNetworkError: it is worse.
    """
    targets = promise.images.targets.cpu().numpy()
    found = first_classes(engine, preprocessing, promise.images.images) == targets
    promised = promise.classes == targets
    top1, promised_top1 = float(np.mean(found)), float(np.mean(promised))
    allowed = MAX_ACCURACY_DROP + 2 * np.sqrt(np.sum(found != promised)) / len(targets)
    if top1 < promised_top1 - allowed:
        raise UnfitNetworkError(
            f"the engine in int8 has a top-1 of {top1:.2%} on {len(targets)} validation images, where 8 bits "
            f"as the search simulates them have {promised_top1:.2%}; give --max-accuracy-drop, such as 2%, "
            "and layers stay in float for it"
        )
