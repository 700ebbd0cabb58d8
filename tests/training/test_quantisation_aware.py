"""Learning to answer in 8 bits, on the real digits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.batches import batches
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import plan_network
from nat2deploy.training import finetune
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge
from nat2deploy.training.finetune import train_network
from nat2deploy.training.loop import LoopSettings, run_loop
from nat2deploy.training.quantisation_aware import _LearntSteps, rounding_network, tune_for_int8
from nat2deploy.training.simulated_precision import simulate

RESOLUTION = 8


@pytest.fixture
def trained(space, digits):
    """A network whose channels differ much in size, which 8 bits for all of them do badly."""
    network = SubNetwork(plan_network(space, space.largest(RESOLUTION), 10))
    train_network(network, digits, LoopSettings(epochs=6, learning_rate=0.05, batch_size=25), RESOLUTION)
    return network.eval()


@pytest.fixture
def calibration(digits):
    return [
        images
        for images, _ in batches(
            digits.train.subset(64, 0),
            batch_size=32,
            resolution=RESOLUTION,
            normalisation=digits.normalisation,
            shuffle_seed=None,
        )
    ]


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_training_graph_rounds_as_the_simulation_does(trained, calibration, symmetric):
    simulated = simulate(trained, "int8", calibration, symmetric=symmetric)
    rounded = rounding_network(copy.deepcopy(trained), calibration, symmetric=symmetric).eval()
    with torch.inference_mode():
        expected, found, exact = (one(calibration[0]) for one in (simulated, rounded, trained))
    # A sum that lies between two steps may be rounded to the other one, hence a few differences.
    assert (found - expected).abs().mean() < 0.1 * (expected - exact).abs().mean()


def test_tuning_makes_8_bits_better_and_leaves_a_plain_network(trained, digits, calibration):
    with (
        torch.no_grad()
    ):  # one channel in a convolution fifty times as large, undone by its batch norm's reader
        first = next(part for part in trained.modules() if isinstance(part, nn.BatchNorm2d))
        first.weight[0] *= 50
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=100)
    tuned = tune_for_int8(
        trained,
        digits,
        LoopSettings(epochs=4, learning_rate=0.02, batch_size=25),
        RESOLUTION,
        calibration=calibration,
        symmetric=False,
        recalibrate=evaluator.recalibrate,
    )
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())
    assert tuned.state_dict().keys() == before.keys() and not tuned.training
    losses = [
        judge(simulate(one, "int8", calibration), digits, digits.validation, RESOLUTION).loss
        for one in (trained, tuned)
    ]
    assert losses[1] < losses[0]
    assert not any(isinstance(part, _LearntSteps) for part in tuned.modules())


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tuning_that_diverges_says_so(space, digits, calibration, symmetric):
    with pytest.raises(UserError, match=r"training diverged at step [1-9].*; lower the learning rate"):
        tune_for_int8(
            SubNetwork(plan_network(space, space.smallest(RESOLUTION), 10)),
            digits,
            LoopSettings(epochs=1, learning_rate=1e20, batch_size=25),
            RESOLUTION,
            calibration=calibration,
            symmetric=symmetric,
            recalibrate=SubNetworkEvaluator(digits, seed=0).recalibrate,
        )


@pytest.mark.parametrize("kill_at", [3, 8])
def test_a_killed_tuning_goes_on_and_ends_the_same(
    trained, digits, calibration, tmp_path, monkeypatch, kill_at
):
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=100)

    def tune(folder, told, kill_at=None):
        def progress(done, total, loss):
            told.append(done)
            if done == kill_at:
                raise KeyboardInterrupt

        return tune_for_int8(
            trained,
            digits,
            LoopSettings(epochs=2, learning_rate=0.02, batch_size=25),
            RESOLUTION,
            calibration=calibration,
            symmetric=False,
            recalibrate=evaluator.recalibrate,
            checkpoint=tmp_path / folder,
            progress=progress,
        )

    expected = tune("undisturbed", [])
    monkeypatch.setattr(finetune, "run_loop", lambda *a, **more: run_loop(*a, save_every_s=-1.0, **more))
    with pytest.raises(KeyboardInterrupt):
        tune("killed", [], kill_at)
    told: list[int] = []
    result = tune("killed", told)
    assert told == list(range(kill_at, 9))
    for _ in range(2):
        for key, value in result.state_dict().items():
            assert torch.equal(value, expected.state_dict()[key])
        told.clear()
        result = tune("killed", told)
        assert told == []
