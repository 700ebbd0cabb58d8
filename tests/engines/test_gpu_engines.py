"""What every engine on a GPU must do, on a GPU."""

import numpy as np
import pytest
import torch
from int8_helpers import SIDE

from nat2deploy.engines.base import WHOLE, Borders
from nat2deploy.engines.quantise import target_onnx
from nat2deploy.engines.registry import compile_model, load_engine
from nat2deploy.engines.tensorrt import TensorRtEngine
from nat2deploy.engines.tensorrt_plan import plan_here
from nat2deploy.errors import UserError
from nat2deploy.target import PRECISIONS, Target

pytestmark = pytest.mark.gpu
SHAPE = (50, 3, SIDE, SIDE)
LARGEST = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.05, "int8": 0.25}


TARGETS = [
    pytest.param(
        Target(device="cuda", backend=backend, precision=precision, batch=50), id=f"{backend} {precision}"
    )
    for backend, precisions in PRECISIONS["cuda"].items()
    for precision in precisions
]


@pytest.fixture
def compiled(trained, needs_backend):
    def compile_for(target, borders=WHOLE):
        needs_backend(target)
        return compile_model(trained.network, target, SHAPE, calibration=trained.seen[:100], borders=borders)

    return compile_for


@pytest.mark.parametrize("target", TARGETS)
def test_answers_are_pytorchs_before_and_after_a_replay(trained, compiled, target):
    engine = compiled(target)
    images = trained.unseen[:50]
    with torch.no_grad():
        expected = trained.network(torch.from_numpy(images)).numpy()
    first = engine.run(images)
    call = engine.prepare(trained.seen[:50])
    assert call() is None
    assert call() is None
    for found in (first, engine.run(images)):
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= LARGEST[target.precision] * np.abs(expected).max()
        assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9


@pytest.mark.parametrize("target", TARGETS)
def test_parts_of_a_network_run(trained, compiled, target):
    engine = compiled(target, Borders(input=True, output=True))
    assert engine.input_type is (np.int8 if target.precision == "int8" else np.float32)
    images = trained.seen[:50].astype(engine.input_type)
    assert np.abs(engine.run(images)).max() > 0
    assert engine.prepare(images)() is None


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_saved_gives_the_same_answers(trained, compiled, target, tmp_path):
    engine = compiled(target)
    path = tmp_path / "engine"
    if target.backend == "torch":
        with pytest.raises(UserError, match="lives in one process"):
            engine.save(path)
        return
    engine.save(path)
    again = load_engine(path, target)
    np.testing.assert_allclose(
        again.run(trained.seen[:50]), engine.run(trained.seen[:50]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_plan_of_a_range_of_batches_runs_them(trained, needs_backend, backend):
    target = Target(device="cuda", backend=backend, batch=50)
    needs_backend(target)
    model = target_onnx(trained.network, target, SHAPE, free_batch=True)
    engine = TensorRtEngine(plan_here(model, target, batches=(1, 50, 60), plans={}), target)
    call = engine.prepare(trained.seen[:50])
    for count in (1, 50, 60):
        images = trained.unseen[:count]
        with torch.no_grad():
            expected = trained.network(torch.from_numpy(images)).numpy()
        assert np.abs(engine.run(images) - expected).max() <= LARGEST["fp32"] * np.abs(expected).max()
        assert call() is None
    with pytest.raises(UserError):
        engine.run(trained.unseen[:61])


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_broken_plan_is_one_line(backend, needs_backend, tmp_path):
    needs_backend(Target(device="cuda", backend=backend))
    (tmp_path / "plan").write_bytes(b"ftrt" + bytes(64))
    with pytest.raises(UserError, match="does not load in tensorrt") as caught:
        load_engine(tmp_path / "plan", Target(device="cuda", backend=backend))
    assert "\n" not in str(caught.value)
