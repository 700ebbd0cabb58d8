"""Compile one candidate after the other, then measure all: the same here and on another device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nat2deploy.measure.clock import Run
from nat2deploy.measure.interleave import Measurement, Progress, measure_interleaved

_PREPARING = 0.3

Prepare = Callable[[np.random.Generator], Run]


def prepare_and_measure(
    label: str,
    candidates: Mapping[str, Prepare],
    reference: Run,
    *,
    seed: int,
    precision: float,
    time_limit_s: float,
    progress: Progress,
) -> Measurement:
    """Prepare candidates in the order given and measure them interleaved; call it on pinned cores.

    Args:
        label: begins each line of progress.
        candidates: name to what compiles a candidate, draws its input and returns the callable to time.
        reference: the reference workload.
        seed: of the inputs and of the visiting orders.
        precision: as of ``measure_interleaved``.
        time_limit_s: seconds of measuring; preparing comes on top.
        progress: told the share done and a line of text.

    Raises:
        UserError: a candidate that does not compile.
    """
    rng = np.random.default_rng(seed)
    runs, count = {}, len(candidates)
    for done, (name, prepare) in enumerate(candidates.items()):
        progress(_PREPARING * done / count, f"{label}: compiling {done + 1} of {count}")
        runs[name] = prepare(rng)
    return measure_interleaved(
        runs,
        seed=seed,
        time_limit_s=time_limit_s,
        precision=precision,
        reference=reference,
        progress=lambda share, text: progress(_PREPARING + (1 - _PREPARING) * share, f"{label}: {text}"),
    )
