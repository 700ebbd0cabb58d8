"""Draw inputs, compile one candidate after the other, then measure all: here and on another device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nat2deploy.engines.ends import InputType
from nat2deploy.measure.clock import Run
from nat2deploy.measure.interleave import Measurement, Progress, measure_interleaved

_PREPARING = 0.3

Prepare = Callable[[np.random.Generator], Run]


class TakesInput(Protocol):
    """Says what the input of a network is like."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """With the batch first."""

    @property
    def input_type(self) -> InputType:
        """uint8 or int8 for a part of an int8 network."""


def random_input(network: TakesInput, rng: np.random.Generator) -> NDArray[Any]:
    """Draw an input of a network's shape and type: normal noise, or any bytes where it takes bytes."""
    if network.input_type is np.uint8:
        return rng.integers(0, 256, network.input_shape, dtype=np.uint8)
    if network.input_type is np.int8:
        return rng.integers(-128, 128, network.input_shape, dtype=np.int8)
    return rng.standard_normal(network.input_shape, dtype=np.float32)


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
