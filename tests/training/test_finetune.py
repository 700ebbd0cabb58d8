"""Fine-tuning: better or as before, and one look at the test split."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.lowering import plan_network
from nat2deploy.training import finetune as module
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge
from nat2deploy.training.finetune import finetune, train_network
from nat2deploy.training.loop import LoopSettings

SETTINGS = LoopSettings(epochs=8.0, learning_rate=0.05, batch_size=25)


@pytest.fixture
def network(space) -> SubNetwork:
    """Untrained, at 8 pixels."""
    return SubNetwork(plan_network(space, space.smallest(8), 10)).eval()


@pytest.fixture(scope="module")
def recalibrate(digits):
    return SubNetworkEvaluator(digits, seed=0).recalibrate


@pytest.fixture
def looks(monkeypatch, digits):
    """The splits that were judged, in order."""
    seen = []
    names = {id(digits.train): "train", id(digits.validation): "validation", id(digits.test): "test"}

    def counted(network, data, split, resolution, *rest):
        seen.append(names[id(split)])
        return judge(network, data, split, resolution, *rest)

    monkeypatch.setattr(module, "judge", counted)
    return seen


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def equal(one, two) -> bool:
    return all(torch.equal(one[key], two[key]) for key in one)


def test_an_untrained_network_improves(network, digits, recalibrate, looks):
    result = finetune(network, digits, SETTINGS, 8, recalibrate=recalibrate)
    assert result.kept
    assert result.after.top1 > result.before.top1 + 0.2
    assert result.steps == 32
    assert judge(network, digits, digits.validation, 8) == result.after
    assert judge(network, digits, digits.test, 8) == result.test
    assert looks == ["validation", "validation", "test"]
    assert not network.training


def test_worse_weights_are_dropped_whole(network, digits, recalibrate, looks):
    train_network(network, digits, SETTINGS, 8)
    recalibrate(network, 8)
    before = state(network)

    def spoil(network, resolution):
        with torch.no_grad():
            for part in network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.weight.zero_()

    result = finetune(network, digits, SETTINGS, 8, recalibrate=spoil)
    assert not result.kept
    assert result.after == result.before
    assert equal(before, network.state_dict())
    assert judge(network, digits, digits.test, 8) == result.test
    assert looks == ["validation", "validation", "test"]
    assert not network.training


def test_it_goes_on_where_it_was_killed(network, digits, recalibrate, tmp_path, killed, monkeypatch):
    monkeypatch.setattr(module, "run_loop", _eager(module.run_loop))
    whole, first, second = (copy.deepcopy(network) for _ in range(3))
    expected = finetune(whole, digits, SETTINGS, 8, recalibrate=recalibrate, tag="t")

    def kill(done, total, loss):
        if done == 9:
            raise killed

    arguments = {"recalibrate": recalibrate, "checkpoint": tmp_path / "c", "tag": "t"}
    with pytest.raises(killed):
        finetune(first, digits, SETTINGS, 8, progress=kill, **arguments)
    told = []
    result = finetune(
        second, digits, SETTINGS, 8, progress=lambda done, total, loss: told.append(done), **arguments
    )
    assert told[0] == 9  # the killed step was not saved yet
    assert result == expected
    assert equal(state(whole), second.state_dict())


def _eager(run_loop):
    return lambda *arguments, **more: run_loop(*arguments, save_every_s=-1.0, **more)


def test_a_teacher_is_followed_and_not_trained(network, digits, space):
    torch.manual_seed(5)
    teacher = SubNetwork(plan_network(space, space.largest(8), 10)).eval().requires_grad_(False)
    before = state(teacher)
    alone = copy.deepcopy(network)
    train_network(alone, digits, SETTINGS, 8)
    train_network(network, digits, SETTINGS, 8, teacher=teacher)
    assert equal(before, teacher.state_dict())
    assert not equal(state(alone), network.state_dict())


def test_time_runs_out(network, digits):
    assert train_network(network, digits, SETTINGS, 8, time_limit_s=-1.0) == 1
