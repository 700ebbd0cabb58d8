"""Draw inputs, compile one candidate after the other, then measure all: here and on another device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nat2deploy.engines.ends import InputType
from nat2deploy.machine import clock_facts
from nat2deploy.measure.clock import Run
from nat2deploy.measure.energy import CannotMeter, Meter, check_fits, find_meter, measure_energy
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
    energy_share: float = 0.0,
    warmup_ms: float = 0.0,
    device: str = "cpu",
) -> Measurement:
    """Prepare candidates in the order given and measure them interleaved; call it on pinned cores.

    Energy is measured after the latencies, where the device has a working meter and its share of the time is
    enough for it; else they get all of the time.

    Args:
        label: begins each line of progress.
        candidates: name to what compiles a candidate, draws its input and returns the callable to time.
        reference: the reference workload.
        seed: of the inputs and of the visiting orders.
        precision: as of ``measure_interleaved``.
        time_limit_s: seconds of measuring; preparing comes on top.
        progress: told the share done and a line of text.
        energy_share: of the time limit, for measuring energy.
        warmup_ms: as of ``measure_interleaved``.
        device: the target's.

    Raises:
        UserError: a candidate that does not compile.
    """
    rng = np.random.default_rng(seed)
    runs, count = {}, len(candidates)
    for done, (name, prepare) in enumerate(candidates.items()):
        progress(_PREPARING * done / count, f"{label}: compiling {done + 1} of {count}")
        runs[name] = prepare(rng)
    meter, why_not = _meter(device, runs, time_limit_s * energy_share) if energy_share else (None, "")
    share = 0.0 if meter is None else energy_share
    # Compiling has kept the processor at work until now, so both looks are at its working frequency.
    before = clock_facts()
    found = measure_interleaved(
        runs,
        seed=seed,
        time_limit_s=time_limit_s * (1 - share),
        precision=precision,
        warmup_ms=warmup_ms,
        reference=reference,
        progress=lambda done, text: progress(
            _PREPARING + (1 - _PREPARING) * (1 - share) * done, f"{label}: {text}"
        ),
    )
    found = replace(found, clocks=(before, clock_facts()), energy_word=why_not)
    if meter is None:
        return found
    start = perf_counter_ns()
    try:
        energies, word = measure_energy(
            runs,
            {name: summary.median_ms for name, summary in found.summaries.items()},
            meter,
            seed=seed,
            limit_s=time_limit_s * share,
            progress=lambda done: progress(1 - (1 - _PREPARING) * share * (1 - done), f"{label}: energy"),
        )
    except CannotMeter as error:
        return replace(found, energy_word=str(error))
    elapsed_s = found.elapsed_s + (perf_counter_ns() - start) / 1e9
    return replace(found, energy_mj=energies, energy_word=word, elapsed_s=elapsed_s)


def _meter(device: str, runs: Mapping[str, Run], limit_s: float) -> tuple[Meter | None, str]:
    """The device's meter, or why there is none that does its work within the limit."""
    try:
        meter = find_meter(device)
        check_fits(runs, meter, limit_s=limit_s)
        return meter, ""
    except CannotMeter as error:
        return None, str(error)
