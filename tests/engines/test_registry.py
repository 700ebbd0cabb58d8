import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from nat2deploy.engines import registry
from nat2deploy.engines.onnxruntime import OnnxRuntimeEngine
from nat2deploy.engines.registry import available_backends, compile_model, load_engine
from nat2deploy.engines.torch_eager import TorchEngine
from nat2deploy.errors import UserError
from nat2deploy.target import Target

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


@pytest.mark.parametrize("client", [None, "/usr/bin/ssh"])
def test_backends_are_listed_with_reasons(monkeypatch, client):
    monkeypatch.setattr(registry.shutil, "which", lambda name: client)
    statuses = {status.name: status for status in available_backends()}
    assert {name for name, status in statuses.items() if status.available} == {
        *("onnxruntime", "torch"),
        *(["openvino"] if find_spec("openvino") else []),
        *(["ssh"] if client else []),
    }
    assert statuses["onnxruntime"].version == onnxruntime.__version__
    assert {"tensorrt", "tensorrt-rtx", "openvino", "cuda", "ssh"} <= set(statuses)
    assert all(status.reason for status in statuses.values())


@pytest.mark.parametrize(("visible", "word"), [(False, "no CUDA device"), (True, "Some GPU is visible, but")])
def test_cuda_reason_says_what_is_seen(monkeypatch, visible, word):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
    status = next(status for status in available_backends() if status.name == "cuda")
    assert word in status.reason
    assert not status.available


def test_installed_but_unsupported_and_broken_packages_are_told_apart(monkeypatch):
    monkeypatch.setattr(registry, "_version", lambda name: "9.9" if name in ("tensorrt-rtx", "torch") else "")

    def broken(name):
        raise ImportError("libfoo.so is missing\nmore")

    monkeypatch.setattr(registry.importlib, "import_module", broken)
    statuses = {status.name: status for status in available_backends()}
    assert statuses["tensorrt-rtx"].reason.startswith("installed, but")
    assert statuses["openvino"].reason == "not installed; run `pip install 'nat2deploy[openvino]'`"
    assert not statuses["openvino"].available
    assert statuses["tensorrt"].reason.startswith("not installed")
    assert (statuses["torch"].available, statuses["torch"].version) == (False, "9.9")
    assert statuses["torch"].reason == "cannot be imported: libfoo.so is missing"


def test_a_missing_openvino_is_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(registry, "_version", lambda name: "")
    monkeypatch.setitem(sys.modules, "openvino", None)  # what an import finds when it is not installed
    monkeypatch.delitem(sys.modules, "nat2deploy.engines.openvino", raising=False)
    with pytest.raises(
        UserError, match=r"cannot be used: not installed; run `pip install 'nat2deploy\[openvino"
    ):
        compile_model(nn.Identity(), Target(backend="openvino"), SHAPE)


def test_importing_the_registry_imports_no_backend():
    script = (
        "import sys, nat2deploy.engines.registry; "
        "print({'torch', 'onnxruntime', 'openvino', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
