"""Everything but the provider itself, by ONNX Runtime's CPU provider."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from int8_helpers import SIDE
from torch import nn

from nat2deploy.engines import onnxruntime_cuda
from nat2deploy.engines.base import Borders
from nat2deploy.engines.onnxruntime_cuda import PROVIDER, OnnxRuntimeCudaEngine
from nat2deploy.engines.registry import compile_model, load_engine
from nat2deploy.errors import UserError
from nat2deploy.target import Target

SHAPE = (50, 3, SIDE, SIDE)
INSIDE = Borders(input=True, output=True)


def target(precision="fp32", batch=50):
    return Target(device="cuda", precision=precision, batch=batch)


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "_MEMORY", "cpu")
    monkeypatch.setattr(onnxruntime_cuda, "device_of", lambda target: torch.device("cpu"))


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-4), ("fp16", 0.01)])
@pytest.mark.parametrize("borders", [Borders(), INSIDE])
def test_answers_are_pytorchs(trained, precision, largest, borders):
    engine = compile_model(trained.network, target(precision), SHAPE, borders=borders)
    assert isinstance(engine, OnnxRuntimeCudaEngine)
    images = trained.unseen[:50]
    with torch.no_grad():
        expected = trained.network(torch.from_numpy(images)).numpy()
    found = engine.run(images)
    assert (found.dtype, engine.input_type) == (np.float32, np.float32)
    assert np.abs(found - expected).max() < largest * np.abs(expected).max()
    assert engine.prepare(images)() is None


@pytest.mark.usefixtures("on_cpu")
def test_it_is_saved_and_loaded(trained, tmp_path):
    engine = compile_model(trained.network, target("fp16"), SHAPE)
    engine.save(tmp_path / "a.onnx")
    again = load_engine(tmp_path / "a.onnx", target("fp16"))
    np.testing.assert_array_equal(again.run(trained.seen[:50]), engine.run(trained.seen[:50]))


@pytest.mark.usefixtures("on_cpu")
def test_a_part_in_float16_is_not_run_as_fp32(tmp_path):
    net = nn.Conv2d(3, 4, 1).eval()
    compile_model(net, target("fp16", 1), (1, 3, 8, 8), borders=INSIDE).save(tmp_path / "a.onnx")
    with pytest.raises(UserError, match="input: float16"):
        load_engine(tmp_path / "a.onnx", target("fp32", 1))


@pytest.mark.usefixtures("on_cpu")
def test_no_onnx_model_is_one_line(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"a\.onnx does not load in ONNX Runtime") as caught:
        load_engine(tmp_path / "a.onnx", target())
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(PROVIDER in ort.get_available_providers(), reason="it has the provider")
def test_an_onnxruntime_without_the_provider_says_which_to_install():
    with pytest.raises(
        UserError,
        match=r"comes without its CUDA provider; run .*`pip install 'onnxruntime-gpu\[cuda,cudnn\]'`",
    ):
        compile_model(nn.Identity(), target(), SHAPE)


def test_a_provider_that_does_not_start_is_not_taken_for_a_gpu(monkeypatch):
    """ONNX Runtime then uses the CPU without an error; here it has no other provider to begin with."""
    monkeypatch.setattr(onnxruntime_cuda, "check_provider", lambda: None)
    monkeypatch.setattr(onnxruntime_cuda, "device_of", lambda target: torch.device("cpu"))
    if torch.cuda.is_available() and PROVIDER in ort.get_available_providers():
        pytest.skip("the provider starts here")
    with pytest.raises(UserError, match="cannot start its CUDA provider"):
        compile_model(nn.ReLU(), target(batch=1), (1, 3, 8, 8))


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("CUDNN_STATUS_EXECUTION_FAILED\nmore", "cannot run this network: CUDNN_STATUS_EXECUTION_FAILED$"),
        ("CUDA failure 2: out of memory ; GPU=0\nmore", "cuda:0 has too little memory left for this network"),
        ("Failed to allocate memory for requested buffer of size 9", "has too little memory left"),
        ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED", "has too little memory left"),
    ],
)
def test_what_a_session_does_not_run_is_one_line(monkeypatch, said, words):
    class Session:
        def run(self, *_):
            raise ort.capi.onnxruntime_pybind11_state.RuntimeException(said)

    engine = compile_model(nn.ReLU(), target(batch=1), (1, 3, 8, 8))
    images = np.zeros((1, 3, 8, 8), np.float32)
    monkeypatch.setattr(engine, "_session", Session())
    for ask in (engine.run, engine.prepare):
        with pytest.raises(UserError, match=words) as caught:
            ask(images)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("on_cpu")
def test_what_the_provider_does_not_run_is_not_computed_on_the_cpu(monkeypatch, capsys):
    class Session:
        def __getattr__(self, name):
            return getattr(real, name)

        def run(self, *_):
            raise ort.capi.onnxruntime_pybind11_state.EPFail("CUDA failure 209: no kernel image")

    engine = compile_model(nn.ReLU(), target(batch=1), (1, 3, 8, 8))
    real = engine._session._sess
    monkeypatch.setattr(engine._session, "_sess", Session())
    for ask in (engine.run, engine.prepare):
        with pytest.raises(UserError, match=r"cannot run this network: .*no kernel image"):
            ask(np.zeros((1, 3, 8, 8), np.float32))
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(PROVIDER in ort.get_available_providers(), reason="it has the provider")
def test_memory_that_cannot_be_had_is_one_line(monkeypatch, on_cpu):
    monkeypatch.setattr(onnxruntime_cuda, "_MEMORY", "cuda")
    engine = compile_model(nn.ReLU(), target(batch=1), (1, 3, 8, 8))
    with pytest.raises(UserError, match=r"^the target \(cuda:0 onnxruntime fp32, batch 1\) cannot run"):
        engine.prepare(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.usefixtures("on_cpu")
def test_nothing_is_printed_when_libraries_are_looked_for(monkeypatch, capsys):
    def preload_dlls():
        print("Failed to load libcublas.so.13")

    monkeypatch.setattr(ort, "preload_dlls", preload_dlls)
    compile_model(nn.ReLU(), target(batch=1), (1, 3, 8, 8))
    assert capsys.readouterr().out == ""
