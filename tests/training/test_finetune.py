"""Fine-tuning: better or as before, and one look at the test split."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.lowering import plan_network
from nat2deploy.training import aep
from nat2deploy.training import finetune as module
from nat2deploy.training.aep import exit_weights_by
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge
from nat2deploy.training.finetune import finetune, train_network
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.phases import Recipe

SETTINGS = LoopSettings(epochs=8.0, learning_rate=0.05, batch_size=25)
RECIPE = Recipe(SETTINGS, exit_weights_by("unif", 1), phases=1)


@pytest.fixture
def network(space) -> SubNetwork:
    """Untrained, at 8 pixels."""
    return SubNetwork(plan_network(space, space.smallest(8), 10)).eval()


@pytest.fixture(scope="module")
def recalibrate(digits):
    return SubNetworkEvaluator(digits, seed=0).recalibrate


@pytest.fixture
def tune(space, digits, recalibrate, tmp_path):
    """Fine-tune a network with one exit."""

    def run(network, recipe=RECIPE, **more):
        arguments = {"recalibrate": recalibrate, "folder": tmp_path, "tag": "t", **more}
        return finetune(
            network,
            digits,
            recipe,
            start=network,
            space=space,
            architecture=space.smallest(8),
            choose=lambda judged: judged.exits,
            **arguments,
        )

    return run


@pytest.fixture
def looks(monkeypatch, digits):
    """The splits that were judged, in order."""
    seen = []
    names = {id(digits.train): "train", id(digits.validation): "validation", id(digits.test): "test"}

    def counted(network, data, split, resolution, **more):
        seen.append(names[id(split)])
        return judge(network, data, split, resolution, **more)

    monkeypatch.setattr(module, "judge", counted)
    return seen


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def equal(one, two) -> bool:
    return all(torch.equal(one[key], two[key]) for key in one)


def test_an_untrained_network_improves(network, digits, tune, looks):
    result = tune(network)
    assert result.kept
    assert result.after.top1 > result.before.top1 + 0.2
    assert judge(result.network, digits, digits.validation, 8).top1 == result.after.top1
    assert judge(result.network, digits, digits.test, 8) == result.test
    assert looks == ["validation", "test"]  # and validation once more, with all exits
    assert not result.network.training


def test_worse_weights_are_dropped_whole(network, digits, tune, recalibrate, looks):
    train_network(network, digits, SETTINGS, 8)
    recalibrate(network, 8)
    before = state(network)

    def spoil(network, resolution):
        with torch.no_grad():
            for part in network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.weight.zero_()

    result = tune(network, recalibrate=spoil)
    assert not result.kept
    assert result.after == result.before
    assert equal(before, result.network.state_dict())
    assert judge(result.network, digits, digits.test, 8) == result.test
    assert looks == ["validation", "test"]
    assert not result.network.training


def test_it_goes_on_where_it_was_killed(network, tune, tmp_path, killed, monkeypatch):
    monkeypatch.setattr(aep, "run_loop", _eager(aep.run_loop))
    whole, first, second = (copy.deepcopy(network) for _ in range(3))
    (tmp_path / "whole").mkdir()
    expected = tune(whole, folder=tmp_path / "whole")

    def kill(phase, done, total, loss):
        if done == 9:
            raise killed

    with pytest.raises(killed):
        tune(first, progress=kill)
    told = []
    result = tune(second, progress=lambda phase, done, total, loss: told.append(done))
    assert told[0] == 9  # the killed step was not saved yet
    assert (result.before, result.after, result.test) == (expected.before, expected.after, expected.test)
    assert equal(state(expected.network), result.network.state_dict())


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


def test_what_a_precision_gives_no_answer_to_is_wrong_as_in_a_search(network, digits, space, tune):
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=100)
    half = replace(space.smallest(8), precision="fp16")
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(1e7)
    settings = replace(SETTINGS, epochs=1.0, learning_rate=1e-9)
    more = {
        "forms": lambda module: evaluator.in_precision(module, half),
        "recalibrate": evaluator.recalibrate,
    }
    result = tune(network, recipe=replace(RECIPE, settings=settings), **more)
    (epoch,) = result.tuned.history
    assert result.before == evaluator.judge(network, half, digits.validation)
    for judged in (result.before, result.after, result.test, epoch):
        assert judged.top1 < 0.02 and 1 < judged.loss <= 100  # chance: 0.1


def test_time_runs_out(network, digits):
    assert train_network(network, digits, SETTINGS, 8, time_limit_s=-1.0) == 1
