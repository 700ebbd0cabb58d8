"""Whole networks, measured interleaved: for calibration, certificates, fronts and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nat2deploy.engines.base import Engine
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.measure.clock import Run
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.interleave import Measurement, Progress, measure_interleaved
from nat2deploy.measure.workloads import random_input
from nat2deploy.target import Target

_REFERENCE_CHANNELS, _REFERENCE_SIDE = 40, 16


def measure_engines(
    engines: Mapping[str, Engine],
    *,
    seed: int,
    time_limit_s: float,
    precision: float = 0.01,
    progress: Progress | None = None,
) -> Measurement:
    """Measure engines on random input, interleaved, on pinned threads, beside a reference workload.

    Args:
        engines: name to engine; of any backend, with the same number of threads.
        seed: of the input images and of the visiting orders.
        time_limit_s: stop after this long; each engine is visited at least once.
        precision: an engine is done when its 95 % interval lies within this share of its median.
        progress: told the share done and a line of text after each round.

    Raises:
        UserError: no engines, engines with different thread counts, or more threads than cores.
    """
    if not engines:
        raise UserError("no networks to measure; name at least one")
    targets = [engine.target for engine in engines.values()]
    counts = sorted({target.threads for target in targets})
    if len(counts) > 1:
        raise UserError(
            f"networks for {counts} threads cannot be measured together; measure each count alone"
        )
    # PyTorch needs the calling thread on all cores, so one PyTorch engine decides for all.
    target = max(targets, key=lambda target: target.backend == "torch")
    rng = np.random.default_rng(seed)
    with pinned_threads(target):
        runs = {name: engine.prepare(random_input(engine, rng)) for name, engine in engines.items()}
        return measure_interleaved(
            runs,
            seed=seed,
            time_limit_s=time_limit_s,
            precision=precision,
            reference=reference_workload(target),
            progress=progress,
        )


def reference_workload(target: Target) -> Run:
    """Return a fixed inverted-residual block on the target's backend and threads, ready to be timed.

    Pointwise and depthwise convolutions in a MobileNet's proportions, so that it slows down when networks do.
    Weights and input are constants: it is the same in every measurement, so its noise is the machine's.
    """
    narrow, wide, side = _REFERENCE_CHANNELS, 6 * _REFERENCE_CHANNELS, _REFERENCE_SIDE
    block = nn.Sequential(
        nn.Conv2d(narrow, wide, 1),
        nn.Hardswish(),
        nn.Conv2d(wide, wide, 5, padding=2, groups=wide),
        nn.Hardswish(),
        nn.Conv2d(wide, narrow, 1),
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(0.01)
    shape = (target.batch, narrow, side, side)
    engine = compile_model(block.eval(), target, shape, calibration=random_calibration(target, shape, 0))
    return engine.prepare(np.full(shape, 0.5, dtype=np.float32))
