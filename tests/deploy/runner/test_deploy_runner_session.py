"""What the runner asks ONNX Runtime for on GPUs, by the real package, whose sessions are only recorded."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from test_deploy_runner_program import refused, run_here

from nat2deploy.deploy.readme import PIP
from nat2deploy.deploy.runner import session
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.deploy.runner.session import open_session

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
FP32_AS_VERIFIED = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A package with GPUs' providers, which prints as the real one does; what sessions were asked for."""
    found: list[Any] = []
    original = ort.InferenceSession

    def preload_dlls() -> None:
        found.append("preloaded")
        print("Failed to load libcublas.so.13")

    def start(model: bytes, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
        print("*** EP Error ***")
        found.append(providers)
        real = original(model, options, providers=["CPUExecutionProvider"])
        return SimpleNamespace(
            run=real.run,
            get_providers=lambda: [name for name, _ in providers],
            disable_fallback=lambda: found.append("no fallback"),
        )

    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", preload_dlls, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", start)
    monkeypatch.setattr(ort, "set_default_logger_severity", lambda level: None)
    return found


def opened(bundle: Path, **options: Any) -> Callable[[Any], Any]:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["target"]["device"] = "cuda:3"
    return open_session(manifest, lambda name: (bundle / name).read_bytes(), 1, **options)


@pytest.mark.parametrize(("given", "number"), [({}, "0"), ({"device_id": 2}, "2")])
def test_it_computes_as_the_bundle_was_verified(
    exported: Path, asked: list[Any], capsys: pytest.CaptureFixture[str], given: dict[str, int], number: str
) -> None:
    opened(exported, **given)(np.zeros((1, 3, 16, 16), np.float32))
    assert asked == ["preloaded", [(CUDA, {"device_id": number, **FP32_AS_VERIFIED})], "no fallback"]
    assert capsys.readouterr().out == ""


def test_tensorrt_leaves_the_rest_to_cuda_on_the_same_gpu(exported: Path, asked: list[Any]) -> None:
    opened(exported, provider="tensorrt", device_id=1)
    cuda = (CUDA, {"device_id": "1", **FP32_AS_VERIFIED})
    assert asked == ["preloaded", [(TENSORRT, {"device_id": "1"}), cuda], "no fallback"]


def test_the_command_line_says_which_gpu_and_prints_json_alone(
    exported: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(exported, "--check", "--json", "--provider", "cuda", "--device-id", "1") == 0
    assert asked[1][0][1]["device_id"] == "1"
    assert json.loads(capsys.readouterr().out)["check"]["ok"]
    assert "invalid gpu_number value: '-1'" in refused(exported, capsys, "--check", "--device-id", "-1")
    assert "--device-id is for GPUs" in refused(exported, capsys, "--check", "--device-id", "0")


def test_on_the_cpu_nothing_is_loaded_for_gpus(exported: Path, asked: list[Any]) -> None:
    opened(exported, provider="cpu")
    assert asked == [[("CPUExecutionProvider", {})]]


@pytest.mark.parametrize(
    ("provider", "missing", "hint"),
    [
        ("cuda", "libcudnn.so.9", "run `pip install 'onnxruntime-gpu[cuda,cudnn]'`"),
        ("tensorrt", "libnvinfer.so.10", "libnvinfer.so.10 is TensorRT 10's"),
    ],
)
def test_a_provider_that_does_not_start_says_which_library_it_lacks(
    exported: Path,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    missing: str,
    hint: str,
) -> None:
    cpu_alone = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: cpu_alone)

    def load(path: str) -> None:
        assert f"onnxruntime_providers_{provider}." in path
        raise OSError(f"{missing}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(session, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": load}))
    with pytest.raises(BadInput) as caught:
        opened(exported, provider=provider)
    assert f"cannot start provider {provider}" in str(caught.value)
    assert f"{missing}: cannot open" in str(caught.value) and hint in str(caught.value)


def test_an_older_package_has_nothing_to_load_beforehand(
    exported: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ort, "preload_dlls")
    opened(exported)
    assert [providers[0][0] for providers in asked[:1]] == [CUDA] and asked[1:] == ["no fallback"]


def test_what_the_readme_installs_brings_cudas_libraries() -> None:
    assert PIP["cuda", "onnxruntime"] == "'onnxruntime-gpu[cuda,cudnn]'"
