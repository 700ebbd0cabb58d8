import numpy as np
import pytest
import torch
from torch import nn

from nat2deploy.engines.torch_eager import TorchEngine, torch_threads
from nat2deploy.errors import UserError
from nat2deploy.target import Target

SHAPE = (1, 3, 8, 8)
IMAGES = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


class Watching(nn.Module):
    """Scales its input by a weight, and notes in which state it ran."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.BatchNorm2d(3)
        self.seen = []

    def forward(self, x):
        self.seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training))
        return self.norm(x * self.weight)


@pytest.fixture(autouse=True)
def _threads_are_given_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def target(threads=1):
    return Target(backend="torch", threads=threads)


def test_run_equals_the_module_in_evaluation_mode():
    module = Watching().train()
    engine = TorchEngine(module, target(), SHAPE)
    np.testing.assert_allclose(engine.run(IMAGES), IMAGES * 2 / np.sqrt(1 + 1e-5), rtol=1e-5)
    assert module.training
    assert module.seen == []  # a copy ran


def test_run_sets_threads_and_inference_mode_and_restores():
    torch.set_num_threads(1)
    engine = TorchEngine(Watching(), target(2), SHAPE)
    engine.run(IMAGES)
    assert engine._module.seen == [(2, True, False)]
    assert torch.get_num_threads() == 1


def test_prepared_callable_runs_with_the_targets_threads():
    torch.set_num_threads(1)
    engine = TorchEngine(Watching(), target(2), SHAPE)
    call = engine.prepare(IMAGES)
    assert engine._module.seen == []
    assert call() is None
    assert engine._module.seen == [(2, True, False)]


def test_later_training_does_not_reach_the_engine():
    module = Watching()
    engine = TorchEngine(module, target(), SHAPE)
    before = engine.run(IMAGES)
    with torch.no_grad():
        module.weight.fill_(5.0)
    assert np.array_equal(engine.run(IMAGES), before)


def test_any_batch_runs_and_results_do_not_share_memory():
    engine = TorchEngine(nn.Identity(), target(), SHAPE)
    many = np.ones((4, *SHAPE[1:]), dtype=np.float32)
    output = engine.run(many)
    assert output.shape == many.shape
    assert not np.shares_memory(output, many)


def test_saving_says_which_backend_can(tmp_path):
    with pytest.raises(UserError, match="onnxruntime"):
        TorchEngine(nn.Identity(), target(), SHAPE).save(tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


def test_threads_are_restored_after_an_error():
    torch.set_num_threads(1)
    with pytest.raises(RuntimeError), torch_threads(2):
        assert torch.get_num_threads() == 2
        raise RuntimeError
    assert torch.get_num_threads() == 1
