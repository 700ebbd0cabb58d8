"""Number formats and layout on the CPU, where PyTorch has them too; the rest needs a GPU."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from int8_helpers import SIDE
from torch import nn

from nat2deploy.engines import torch_cuda
from nat2deploy.engines.registry import compile_model
from nat2deploy.engines.torch_cuda import TorchCudaEngine
from nat2deploy.errors import UserError
from nat2deploy.target import Target

SHAPE = (50, 3, SIDE, SIDE)
LARGEST = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.05}


def target(precision):
    return Target(device="cuda", backend="torch", precision=precision, batch=50)


@pytest.fixture
def on_cpu(monkeypatch):
    """The engine, with the CPU for its GPU; work is run instead of captured."""
    monkeypatch.setattr(torch_cuda, "device_of", lambda target: torch.device("cpu"))

    def replayed(device, launch):
        def call():
            launch()

        return call

    monkeypatch.setattr(torch_cuda, "replayed", replayed)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("precision", LARGEST)
def test_a_trained_networks_answers_survive(trained, precision):
    engine = TorchCudaEngine(trained.network, target(precision), SHAPE)
    images = trained.unseen[:50]
    with torch.no_grad():
        expected = trained.network(torch.from_numpy(images)).numpy()
    found = engine.run(images)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < LARGEST[precision]
    assert (difference > 1e-5) == (precision != "fp32")
    np.testing.assert_array_equal(engine.run(images[:3]).shape, (3, 10))


class Watching(nn.Module):
    """Notes what reaches its one convolution."""

    seen: ClassVar[list] = []  # copies share it

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        last = torch.channels_last
        self.seen.append(
            (
                x.dtype,
                x.is_contiguous(memory_format=last) and self.conv.weight.is_contiguous(memory_format=last),
                torch.is_inference_mode_enabled(),
                torch.backends.cudnn.benchmark,
                torch.backends.cudnn.allow_tf32,
            )
        )
        return self.conv(x)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("precision", LARGEST)
def test_kernels_are_channels_last_and_tuned_and_never_rounded_to_tf32(monkeypatch, precision):
    monkeypatch.setattr(Watching, "seen", [])
    module = Watching().train()
    engine = TorchCudaEngine(module, target(precision), SHAPE)
    assert module.training
    assert not module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    before = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)
    images = np.zeros(SHAPE, np.float32)
    engine.run(images)
    call = engine.prepare(images)
    assert call() is None
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert Watching.seen[0] == (kind, True, True, True, False)
    assert Watching.seen[1][:2] == (kind, True)
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.usefixtures("on_cpu")
def test_vectors_run_too():
    engine = TorchCudaEngine(nn.ReLU(), Target(device="cuda", backend="torch"), (1, 8))
    np.testing.assert_array_equal(engine.run(-np.ones((1, 8), np.float32)), 0)


@pytest.mark.usefixtures("on_cpu")
def test_it_is_not_saved(tmp_path):
    engine = TorchCudaEngine(nn.ReLU(), Target(device="cuda", backend="torch"), (1, 8))
    with pytest.raises(UserError, match="lives in one process only"):
        engine.save(tmp_path / "x")


def test_the_batch_is_the_targets():
    with pytest.raises(UserError, match="make them agree"):
        compile_model(nn.ReLU(), target("fp16"), (1, 3, 8, 8))
