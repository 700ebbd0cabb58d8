"""From candidates to engines that are ready to run: what is measured, here and on other devices."""

from __future__ import annotations

import numpy as np

from nat2deploy.engines.base import Engine
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.measure.clock import Run
from nat2deploy.measure.groups import Candidate, Reference
from nat2deploy.measure.prepared import random_input
from nat2deploy.measure.reference import REFERENCE_INPUT
from nat2deploy.target import Target

_CALIBRATION_SEED = 0


def compile_candidate(candidate: Candidate, target: Target) -> Engine:
    """Compile a candidate as it is deployed; for int8, calibrated on noise.

    Raises:
        UserError: the target's backend is missing, or cannot run the candidate here.
    """
    if candidate.keeps_fp32:
        target = target.model_copy(update={"precision": "fp32"})
    shape = (target.batch, *candidate.input_shape)
    return compile_model(
        candidate.build(),
        target,
        shape,
        calibration=random_calibration(target, shape, _CALIBRATION_SEED),
        borders=candidate.borders,
    )


def prepare_candidate(candidate: Candidate, target: Target, rng: np.random.Generator) -> Run:
    """Compile a candidate and return what runs it on random input."""
    engine = compile_candidate(candidate, target)
    return engine.prepare(random_input(engine, rng))


def reference_workload(target: Target) -> Run:
    """Return what runs the reference workload on the target's backend and threads."""
    engine = compile_candidate(Reference(), target)
    return engine.prepare(np.full(engine.input_shape, REFERENCE_INPUT, dtype=np.float32))
