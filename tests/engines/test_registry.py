import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from nat2deploy.engines import registry
from nat2deploy.engines.onnxruntime import OnnxRuntimeEngine
from nat2deploy.engines.registry import compile_ahead, compile_model, load_engine
from nat2deploy.engines.torch_eager import TorchEngine
from nat2deploy.errors import UserError
from nat2deploy.target import PRECISIONS, Target

SHAPE = (1, 3, 8, 8)
IMAGES = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def test_the_target_chooses_the_backend_and_all_agree():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish()).eval()
    engines = [compile_model(module, Target(backend=name), SHAPE) for name in ("onnxruntime", "torch")]
    assert [type(engine) for engine in engines] == [OnnxRuntimeEngine, TorchEngine]
    outputs = [engine.run(IMAGES) for engine in engines]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_batch_of_shape_and_target_must_agree():
    for name in ("onnxruntime", "torch"):
        with pytest.raises(UserError, match="make them agree"):
            compile_model(nn.Identity(), Target(backend=name, batch=2), SHAPE)


def test_load_engine_reads_what_save_wrote(tmp_path):
    engine = compile_model(nn.Conv2d(3, 4, 1).eval(), Target(), SHAPE)
    engine.save(tmp_path / "a.onnx")
    assert np.array_equal(load_engine(tmp_path / "a.onnx", Target()).run(IMAGES), engine.run(IMAGES))
    with pytest.raises(UserError, match="backend onnxruntime"):
        load_engine(tmp_path / "a.onnx", Target(backend="torch"))


def test_a_missing_openvino_is_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(registry, "version", lambda name: "")
    monkeypatch.setitem(sys.modules, "openvino", None)  # what an import finds when it is not installed
    monkeypatch.delitem(sys.modules, "nat2deploy.engines.openvino", raising=False)
    with pytest.raises(
        UserError, match=r"cannot be used: not installed; run `pip install 'nat2deploy\[openvino"
    ):
        compile_model(nn.Identity(), Target(backend="openvino"), SHAPE)


def test_only_one_backend_compiles_ahead():
    for target in (Target(), Target(device="cuda", backend="tensorrt")):
        with pytest.raises(
            UserError, match="cannot be compiled ahead; choose tensorrt-rtx, and GPUs by `sm`"
        ):
            compile_ahead(nn.Identity(), target, SHAPE, sm=(86,))
    with pytest.raises(UserError, match="cannot be compiled ahead"):
        compile_ahead(nn.Identity(), Target(device="cuda", backend="tensorrt-rtx"), SHAPE, sm=())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("backend", sorted(PRECISIONS["cuda"]))
def test_without_a_gpu_each_backend_says_what_is_missing_in_one_line(backend):
    with pytest.raises(UserError) as caught:
        compile_model(nn.Identity(), Target(device="cuda", backend=backend), SHAPE)
    assert re.search(r"sees no GPU here; install|; run `pip (un)?install", str(caught.value))
    assert "\n" not in str(caught.value)


def test_importing_the_registry_imports_no_backend():
    script = (
        "import sys, nat2deploy.engines.registry; "
        "print({'torch', 'onnxruntime', 'openvino', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
