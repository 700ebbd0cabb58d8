"""Stages in real sessions: what each exit answers, and what is run up to it."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.errors import UserError
from nat2deploy.measure.networks import measure_engines
from nat2deploy.target import Target

WEIGHTS = (0.25, 0.75)
SHAPE = (2, 3, 8, 8)
TARGET = Target(batch=2)


class First(nn.Module):
    """Logits and features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.linear = nn.Linear(4, 5)

    def forward(self, x):
        features = torch.relu(self.conv(x))
        return self.linear(features.mean((2, 3))), features


class Last(nn.Module):
    """Logits alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 64, 5)

    def forward(self, x):
        return self.linear(x.flatten(1))


@pytest.fixture(scope="module")
def modules():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return First().eval(), Last().eval()


@pytest.fixture(scope="module")
def models(modules):
    first, last = modules
    return to_onnx(first, SHAPE, outputs=("output", "features")), to_onnx(last, (2, 4, 8, 8))


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def test_each_exit_answers_with_the_mean_so_far(modules, models, images):
    engine = StagedEngine(models, WEIGHTS, TARGET)
    with torch.no_grad():
        early, features = modules[0](torch.from_numpy(images))
        late = modules[1](features)
    answers = engine.answers(images)
    np.testing.assert_allclose(answers[0], early.numpy() / 0.25, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers[1], (early + late).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(engine.run(images), answers[1])
    np.testing.assert_array_equal(engine.up_to(1).run(images), answers[0])


def test_what_is_run_up_to_each_exit_can_be_measured(models):
    # A hundred times the first stage's work: no noise hides that it is left out.
    wide = nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 5))
    heavy = (models[0], to_onnx(wide.eval(), (2, 4, 8, 8)))
    engine = StagedEngine(heavy, WEIGHTS, TARGET)
    shorter = engine.up_to(1)
    assert (engine.exits, shorter.exits, shorter.models) == (2, 1, heavy[:1])
    engines = {"one": shorter, "two": engine.measuring("entropy")}
    found = measure_engines(engines, seed=0, time_limit_s=0.2).summaries
    assert found["one"].median_ms < found["two"].median_ms


def test_stages_are_not_saved_as_one_file(models, tmp_path):
    with pytest.raises(UserError, match="several files"):
        StagedEngine(models, WEIGHTS, TARGET).save(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "target", [Target(backend="openvino"), Target(device="cuda:0", backend="onnxruntime")]
)
def test_other_targets_are_refused(models, target):
    with pytest.raises(UserError, match="stages run in ONNX Runtime on the CPU"):
        StagedEngine(models, WEIGHTS, target)


def test_files_that_are_no_stages_are_refused_by_their_number(models):
    with pytest.raises(UserError, match="stage 1 of the exported network has 1 outputs"):
        StagedEngine((models[1], models[0]), WEIGHTS, TARGET)
    with pytest.raises(UserError, match="2 stages and 1 weights"):
        StagedEngine(models, WEIGHTS[:1], TARGET)
    with pytest.raises(UserError, match="has a batch of 2, the target one of 1"):
        StagedEngine(models, WEIGHTS, Target())


def test_exports_name_what_they_return(modules, models):
    graph = onnx.load_model_from_string(models[0]).graph
    assert [value.name for value in graph.output] == ["output", "features"]
    assert models[0] == to_onnx(modules[0], SHAPE, outputs=("output", "features"))
    with pytest.raises(UserError, match="only networks that return a tuple of 2 tensors export"):
        to_onnx(modules[1], (2, 4, 8, 8), outputs=("output", "features"))
    with pytest.raises(UserError, match="returns a tuple; only networks that return one tensor export"):
        to_onnx(modules[0], SHAPE)
