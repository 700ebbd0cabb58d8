import os

import numpy as np
import pytest
from torch import nn

from nat2deploy.engines.base import Engine
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.measure.networks import measure_engines
from nat2deploy.measure.workloads import reference_workload
from nat2deploy.target import Target

SHAPE = (1, 3, 16, 16)


class Watching(Engine):
    """Notes the input that it is timed on and the cores that it runs on."""

    def _run(self, images):
        return images

    def _prepare(self, images):
        self.images, self.cores = images, set()
        return lambda: self.cores.add(frozenset(os.sched_getaffinity(0)))

    def _save(self, path):
        path.write_bytes(b"")


def test_both_backends_are_measured_side_by_side():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish()).eval()
    engines = {name: compile_model(module, Target(backend=name), SHAPE) for name in ("onnxruntime", "torch")}
    found = measure_engines(engines, seed=0, time_limit_s=0.4, precision=0.5)
    assert list(found.summaries) == ["onnxruntime", "torch"]
    assert all(summary.median_ms > 0 and summary.rounds >= 1 for summary in found.summaries.values())
    assert found.reference_ms > 0


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_larger_network_takes_longer(backend):
    target = Target(backend=backend)
    engines = {
        str(width): compile_model(nn.Conv2d(3, width, 5).eval(), target, (1, 3, 32, 32)) for width in (4, 256)
    }
    found = measure_engines(engines, seed=0, time_limit_s=0.4, precision=0.2)
    assert found.summaries["256"].median_ms > 2 * found.summaries["4"].median_ms


def test_input_comes_from_the_seed_and_runs_on_one_core_for_one_thread():
    def watched(seed):
        engines = {name: Watching(Target(), SHAPE) for name in "ab"}
        measure_engines(engines, seed=seed, time_limit_s=0.1, precision=0.9)
        return engines

    first, again, other = watched(1), watched(1), watched(2)
    assert np.array_equal(first["a"].images, again["a"].images)
    assert not np.array_equal(first["a"].images, first["b"].images)
    assert not np.array_equal(first["a"].images, other["a"].images)
    assert first["a"].images.dtype == np.float32
    assert {len(cores) for cores in first["a"].cores} == {1}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="no networks"):
        measure_engines({}, seed=0, time_limit_s=1)
    engines = {str(count): Watching(Target(threads=count), SHAPE) for count in (1, 2)}
    with pytest.raises(UserError, match=r"\[1, 2\] threads"):
        measure_engines(engines, seed=0, time_limit_s=1)


@pytest.mark.parametrize(
    "target", [Target(), Target(backend="torch"), Target(batch=2), Target(precision="int8")]
)
def test_reference_runs_on_every_target(target):
    assert reference_workload(target)() is None
