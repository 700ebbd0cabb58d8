"""8 bits within an accuracy budget: the layers that must stay in float, searched in the engine itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from nat2deploy.deploy.parity import Floats
from nat2deploy.deploy.quantisable import Model, Quantisable

Run = Callable[[Model, Floats], Floats]
"""Compiles a model for the target and runs it on images [N, 3, r, r]; gives logits [N, classes]."""
Top1 = Callable[[Model], float]
"""Compiles a model for the target and judges it on validation images; gives a share."""
Progress = Callable[[str], None]

_RANKING_IMAGES = 64


@dataclass(frozen=True)
class MixedPrecision(Generic[Model]):
    """What was found: the model, its layers in float (most sensitive first) and its top-1 on validation."""

    model: Model
    float_layers: tuple[str, ...]
    top1: float


def quantise_within(
    quantiser: Quantisable[Model],
    model: Model,
    calibration: Floats,
    *,
    lowest_top1: float,
    top1: Top1[Model],
    run: Run[Model],
    in_float: Sequence[str] = (),
    progress: Progress = lambda text: None,
) -> MixedPrecision[Model]:
    """Quantise a float model with as few layers in float as its accuracy on validation images allows.

    All layers in 8 bits are tried first, but for those of ``in_float``. When that is not enough, layers are
    ranked by how far logits move when that layer alone is in 8 bits; the shortest beginning of the ranking
    that reaches ``lowest_top1`` in float is found by bisection, and then each of its layers goes back to 8
    bits, the least sensitive first, where accuracy stands it. Where all in float do not reach it, all are.

    Args:
        quantiser: of the model.
        model: in float32.
        calibration: float32 [N, 3, r, r].
        lowest_top1: what the engine must reach on validation, a share.
        top1: of the engine on validation.
        run: the engine.
        in_float: layers that stay in float in any case, and are not among those found.
        progress: told what is tried.

    Raises:
        UserError: the model cannot be quantised.
    """

    def judged(float_layers: Sequence[str]) -> MixedPrecision[Model]:
        found = quantiser.in_8_bits([*in_float, *float_layers])
        share = top1(found)
        progress(f"{len(float_layers)} layers in float for accuracy: {share:.2%}")
        return MixedPrecision(found, tuple(float_layers), share)

    best = judged(())
    if best.top1 >= lowest_top1:
        return best
    ranking = _ranked(quantiser, model, calibration[:_RANKING_IMAGES], run, in_float, progress)
    low, high = 0, len(ranking)
    best = judged(ranking)
    if best.top1 < lowest_top1:
        return best
    while high - low > 1:  # low is not enough, high is
        middle = (low + high) // 2
        found = judged(ranking[:middle])
        if found.top1 >= lowest_top1:
            high, best = middle, found
        else:
            low = middle
    for layer in reversed(best.float_layers[:-1]):  # the last was just found to be needed
        fewer = judged([one for one in best.float_layers if one != layer])
        if fewer.top1 >= lowest_top1:
            best = fewer
    return best


def _ranked(
    quantiser: Quantisable[Model],
    model: Model,
    images: Floats,
    run: Run[Model],
    in_float: Sequence[str],
    progress: Progress,
) -> list[str]:
    """The other layers, the one that moves logits most when it alone is in 8 bits first."""
    exact = run(model, images)
    errors = {}
    asked = [layer for layer in quantiser.layers if layer not in in_float]
    for index, layer in enumerate(asked):
        progress(f"sensitivity of layer {index + 1} of {len(asked)}")
        others = [one for one in quantiser.layers if one != layer]
        errors[layer] = float(np.square(run(quantiser.in_8_bits(others), images) - exact).mean())
    return sorted(errors, key=lambda layer: -errors[layer])
