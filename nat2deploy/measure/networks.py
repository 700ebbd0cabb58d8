"""Whole networks, measured interleaved: for calibration, certificates, fronts and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError
from nat2deploy.measure.environment import hands_down_cores, pinned_threads
from nat2deploy.measure.interleave import Measurement, Progress, measure_interleaved
from nat2deploy.measure.prepared import random_input
from nat2deploy.measure.workloads import reference_workload


def measure_engines(
    engines: Mapping[str, Engine],
    *,
    seed: int,
    time_limit_s: float,
    precision: float = 0.01,
    tail_intervals: bool = False,
    progress: Progress | None = None,
) -> Measurement:
    """Measure engines on random input, interleaved, on pinned threads, beside a reference workload.

    Args:
        engines: name to engine; of any backend, on one device, with the same number of threads.
        seed: of the input images and of the visiting orders.
        time_limit_s: stop after this long; each engine is visited at least once.
        precision: an engine is done when its 95 % interval lies within this share of its median.
        tail_intervals: find 95 % intervals of the 95th and 99th percentile, too.
        progress: told the share done and a line of text after each round.

    Raises:
        UserError: no engines, engines with different thread counts or devices, or more threads than cores.
    """
    if not engines:
        raise UserError("no networks to measure; name at least one")
    targets = [engine.target for engine in engines.values()]
    counts = sorted({target.threads for target in targets})
    if len(counts) > 1:
        raise UserError(
            f"networks for {counts} threads cannot be measured together; measure each count alone"
        )
    devices = sorted({target.device for target in targets})
    if len(devices) > 1:
        raise UserError(
            f"networks on {' and '.join(devices)} cannot be measured together; measure each alone"
        )
    # PyTorch needs the calling thread on all cores, so one PyTorch engine decides for all.
    target = max(targets, key=hands_down_cores)
    rng = np.random.default_rng(seed)
    with pinned_threads(target):
        runs = {name: engine.prepare(random_input(engine, rng)) for name, engine in engines.items()}
        return measure_interleaved(
            runs,
            seed=seed,
            time_limit_s=time_limit_s,
            precision=precision,
            reference=reference_workload(target),
            tail_intervals=tail_intervals,
            progress=progress,
        )
