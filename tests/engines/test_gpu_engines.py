"""What every engine on a GPU must do, on a GPU."""

from importlib.util import find_spec

import numpy as np
import onnxruntime as ort
import pytest
import torch
from int8_helpers import SIDE

from nat2deploy.engines.base import Borders
from nat2deploy.engines.registry import compile_model, load_engine
from nat2deploy.errors import UserError
from nat2deploy.target import PRECISIONS, Target

pytestmark = pytest.mark.gpu
SHAPE = (50, 3, SIDE, SIDE)
LARGEST = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.05, "int8": 0.25}


def usable(backend):
    if backend == "onnxruntime":
        return "CUDAExecutionProvider" in ort.get_available_providers()
    module = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}.get(backend)
    return module is None or find_spec(module) is not None


TARGETS = [
    pytest.param(
        Target(device="cuda", backend=backend, precision=precision, batch=50),
        marks=pytest.mark.skipif(not usable(backend), reason=f"{backend} for GPUs is not installed"),
        id=f"{backend} {precision}",
    )
    for backend, precisions in PRECISIONS["cuda"].items()
    for precision in precisions
]


def compiled(trained, target, borders=None):
    try:
        return compile_model(
            trained.network, target, SHAPE, calibration=trained.seen[:100], borders=borders or Borders()
        )
    except UserError as error:
        if target.backend == "tensorrt-rtx" and torch.cuda.get_device_capability()[0] == 9:
            pytest.skip(f"TensorRT for RTX is not for this GPU: {error}")
        raise


@pytest.mark.parametrize("target", TARGETS)
def test_answers_are_pytorchs_before_and_after_a_replay(trained, target):
    engine = compiled(trained, target)
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
def test_parts_of_a_network_run(trained, target):
    engine = compiled(trained, target, Borders(input=True, output=True))
    assert engine.input_type is (np.int8 if target.precision == "int8" else np.float32)
    images = trained.seen[:50].astype(engine.input_type)
    assert np.abs(engine.run(images)).max() > 0
    assert engine.prepare(images)() is None


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_saved_gives_the_same_answers(trained, target, tmp_path):
    engine = compiled(trained, target)
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
def test_a_broken_plan_is_one_line(backend, tmp_path):
    if not usable(backend):
        pytest.skip(f"{backend} is not installed")
    (tmp_path / "plan").write_bytes(b"ftrt" + bytes(64))
    with pytest.raises(UserError, match="does not load in tensorrt") as caught:
        load_engine(tmp_path / "plan", Target(device="cuda", backend=backend))
    assert "\n" not in str(caught.value)
