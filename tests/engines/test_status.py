from importlib.util import find_spec

import onnxruntime
import pytest
import torch

from nat2deploy.engines import onnxruntime_cuda, status
from nat2deploy.engines.status import available_backends
from nat2deploy.errors import UserError


def by_name():
    return {one.name: one for one in available_backends()}


@pytest.mark.parametrize("client", [None, "/usr/bin/ssh"])
def test_backends_are_listed_with_reasons(monkeypatch, client):
    monkeypatch.setattr(status.shutil, "which", lambda name: client)
    monkeypatch.setattr(status, "visible_gpus", list)
    found = by_name()
    assert {name for name, one in found.items() if one.available} == {
        *("onnxruntime", "torch"),
        *(["openvino"] if find_spec("openvino") else []),
        *(["ssh"] if client else []),
    }
    assert found["onnxruntime"].version == onnxruntime.__version__
    assert set(found) >= {"openvino", "cuda", "onnxruntime cuda", "tensorrt", "tensorrt-rtx", "ssh"}
    assert all(one.reason and "\n" not in one.reason for one in found.values())
    assert found["cuda"].reason == "PyTorch sees no GPU here"


def test_what_runs_on_a_gpu_is_usable_where_one_is_seen(monkeypatch):
    monkeypatch.setattr(status, "visible_gpus", lambda: ["NVIDIA A", "NVIDIA B"])
    found = by_name()
    assert found["cuda"].available
    assert found["cuda"].reason.startswith("cuda:0 is NVIDIA A, cuda:1 is NVIDIA B; PyTorch on it")
    assert found["cuda"].version == (torch.version.cuda or "")
    installed = find_spec("tensorrt_rtx") is not None
    assert found["tensorrt-rtx"].available is installed
    assert found["tensorrt-rtx"].reason == (
        "TensorRT for RTX on GPUs: fp32, fp16, int8"
        if installed
        else "not installed; run `pip install 'nat2deploy[tensorrt-rtx]'`"
    )


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_tensorrt_for_rtx_is_of_use_without_a_gpu(monkeypatch):
    monkeypatch.setattr(status, "visible_gpus", list)
    one = by_name()["tensorrt-rtx"]
    assert not one.available
    assert one.reason == "installed, but PyTorch sees no GPU here; it compiles for others"
    assert one.version[0].isdigit()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="it has the provider"
)
def test_an_onnxruntime_for_cpus_says_how_to_get_the_other(monkeypatch):
    monkeypatch.setattr(status, "visible_gpus", lambda: ["NVIDIA A"])
    one = by_name()["onnxruntime cuda"]
    assert not one.available
    assert "`pip install 'onnxruntime-gpu[cuda,cudnn]'`" in one.reason


def test_a_provider_counts_only_where_it_starts(monkeypatch):
    monkeypatch.setattr(status, "visible_gpus", lambda: ["NVIDIA A"])
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    assert by_name()["onnxruntime cuda"].available

    class Silent(onnxruntime.InferenceSession):
        """Falls back to other providers without an error."""

        def get_providers(self):
            return ["Other"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Silent)
    one = by_name()["onnxruntime cuda"]
    assert not one.available
    assert "cannot start its CUDA provider" in one.reason


def test_no_pytorch_no_gpus(monkeypatch):
    def blind():
        raise UserError("PyTorch, which finds GPUs, cannot be imported: libfoo.so")

    monkeypatch.setattr(status, "visible_gpus", blind)
    one = by_name()["cuda"]
    assert (one.available, one.reason) == (False, "PyTorch, which finds GPUs, cannot be imported: libfoo.so")


def test_missing_and_broken_packages_are_told_apart(monkeypatch):
    monkeypatch.setattr(status, "version", lambda name: "9.9" if name == "torch" else "")

    def broken(name):
        raise ImportError("libfoo.so is missing\nmore")

    monkeypatch.setattr(status.importlib, "import_module", broken)
    found = by_name()
    assert found["openvino"].reason == "not installed; run `pip install 'nat2deploy[openvino]'`"
    assert not found["openvino"].available
    assert (found["torch"].available, found["torch"].version) == (False, "9.9")
    assert found["torch"].reason == "cannot be imported: libfoo.so is missing"
