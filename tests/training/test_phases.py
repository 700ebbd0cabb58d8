"""Two phases: the best number of epochs, then all images for as many, from the same start."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import Split
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import plan_network
from nat2deploy.training import aep, phases
from nat2deploy.training.aep import exit_weights_by
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.training.exits import space_with_exits, with_earlier_exits
from nat2deploy.training.loop import LoopSettings, run_loop
from nat2deploy.training.phases import Recipe, checkpoints, together, tune_exits

SETTINGS = LoopSettings(epochs=4.0, learning_rate=0.05, batch_size=25, warmup_epochs=0.2)
STEPS = 4  # an epoch of the training split


@pytest.fixture(scope="module")
def early(space):
    return space_with_exits(space)


@pytest.fixture
def architecture(space):
    return with_earlier_exits(space.smallest(8))


@pytest.fixture
def network(early, architecture) -> SubNetwork:
    """Untrained, at 8 pixels, with two exits."""
    return SubNetwork(plan_network(early, architecture, 10)).eval()


@pytest.fixture
def calls(monkeypatch):
    """The loop's settings and splits, and the rate of each step."""
    seen = []

    def spied(module, step, settings, data, **more):
        seen.append((settings, more["split"], more["watch"]))
        return run_loop(module, step, settings, data, **more)

    monkeypatch.setattr(aep, "run_loop", spied)
    return seen


@pytest.fixture
def tune(network, early, architecture, digits, tmp_path):
    def run(recipe, **more):
        arguments = {
            "choose": lambda judged: judged.exits,
            "recalibrate": SubNetworkEvaluator(digits, seed=0, recalibration_images=50).recalibrate,
            "folder": tmp_path,
            "tag": "t",
            **more,
        }
        data = arguments.pop("data", digits)
        return tune_exits(network, early, architecture, data, recipe, **arguments)

    return run


def scripted(monkeypatch, top1s):
    """Let the validation accuracy after each epoch be what a script says."""
    judge, left = phases._judge, iter(top1s)

    def fake(joint, data, resolution, forms):
        judged = judge(joint, data, resolution, forms)
        top1 = next(left)
        return replace(judged, states={k: replace(v, top1=top1) for k, v in judged.states.items()})

    monkeypatch.setattr(phases, "_judge", fake)


def recipe(**changes):
    return Recipe(SETTINGS, exit_weights_by("unif", 2), **changes)


def test_the_second_phase_trains_on_both_splits_for_the_best_epochs(tune, calls, monkeypatch, digits):
    scripted(monkeypatch, [0.3, 0.5, 0.4, 0.45])
    tuned = tune(recipe())
    (first, train, _), (second, both, _) = calls
    assert (first.epochs, second.epochs, tuned.epochs) == (4.0, 2.0, 2.0)
    assert train is digits.train
    assert len(both) == len(digits.train) + len(digits.validation)
    assert both.fingerprint() == together(digits).fingerprint()
    assert tuned.curve == (0.3, 0.5, 0.4, 0.45)
    assert [(e.phase, e.epoch) for e in tuned.history[4:]] == [(2, 1.0), (2, 2.0)]
    assert all(epoch.top1 is None for epoch in tuned.history[4:])  # it trains on those images
    assert tuned.judged.whole.top1 == 0.5
    # Its own cosine: all but the epochs and the warm-up are as in the first phase.
    assert second == replace(first, epochs=2.0, warmup_epochs=0.2)


def test_patience_ends_the_first_phase(tune, calls, monkeypatch):
    scripted(monkeypatch, [0.3, 0.2, 0.1])
    tuned = tune(recipe(patience=2))
    assert tuned.curve == (0.3, 0.2, 0.1)
    assert tuned.epochs == 1.0


def test_the_second_phase_begins_where_the_first_began(tune, network, calls, monkeypatch, digits):
    before = copy.deepcopy(network.state_dict())
    scripted(monkeypatch, [0.3, 0.2, 0.1, 0.1])
    tuned = tune(recipe())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    alone = copy.deepcopy(network)
    joint = aep.JointTraining(alone, exit_weights_by("unif", 2))
    settings = replace(SETTINGS, epochs=1.0, warmup_epochs=0.1)
    aep.train_jointly(joint, digits, settings, 8, split=together(digits))
    SubNetworkEvaluator(digits, seed=0, recalibration_images=50).recalibrate(alone, 8)
    for key, value in tuned.network.state_dict().items():
        torch.testing.assert_close(value, alone.state_dict()[key])


def test_one_phase_trains_on_the_training_split_alone(tune, calls, digits):
    tuned = tune(recipe(phases=1))
    ((settings, split, _),) = calls
    assert settings == SETTINGS and split is digits.train
    assert tuned.epochs == 4.0 and [(e.phase, e.epoch) for e in tuned.history] == [
        (1, n) for n in (1, 2, 3, 4)
    ]
    assert tuned.judged.whole.images == len(digits.validation)


def test_one_phase_is_judged_after_each_epoch_and_ends_with_what_it_was_judged_as_last(tune, monkeypatch):
    scripted(monkeypatch, [0.3, 0.5, 0.4, 0.45])
    tuned = tune(recipe(phases=1))
    assert tuned.curve == (0.3, 0.5, 0.4, 0.45)
    assert tuned.judged.whole.top1 == 0.45  # no epoch is chosen
    assert tuned.judged.whole.loss == tuned.history[-1].loss
    assert all(epoch.training_loss > 0 and epoch.learning_rate > 0 for epoch in tuned.history)


def test_judging_each_epoch_changes_nothing_else(tune, tmp_path, monkeypatch):
    each = tune(recipe(phases=1))
    looks, judge = [], phases._judge
    monkeypatch.setattr(phases, "_judge", lambda *given: looks.append(1) or judge(*given))
    (tmp_path / "last").mkdir()
    last = tune(recipe(phases=1, validate_each_epoch=False), folder=tmp_path / "last")
    assert len(looks) == 1 and last.judged == each.judged
    assert last.history[-1] == each.history[-1]
    assert [replace(e, top1=None, loss=None) for e in each.history[:-1]] == list(last.history[:-1])
    for key, value in last.network.state_dict().items():
        assert torch.equal(value, each.network.state_dict()[key])


def test_a_part_of_an_epoch_is_one(tune):
    settings = replace(SETTINGS, epochs=1.5)
    tuned = tune(replace(recipe(phases=1), settings=settings))
    assert [epoch.epoch for epoch in tuned.history] == [1.0, 1.5]
    assert tuned.history[-1].top1 == tuned.judged.whole.top1


def test_the_chosen_exits_alone_remain(tune):
    tuned = tune(recipe(phases=1), choose=lambda judged: (1,))
    assert tuned.exits == (1,)
    assert list(tuned.network.exits) == ["1"] and len(tuned.network.layers()) == 1


def test_without_a_validation_split_there_is_no_looking_at_test(tune, digits):
    nothing = Split(digits.validation.images[:0], digits.validation.targets[:0])
    with pytest.raises(UserError, match="no validation split"):
        tune(recipe(), data=replace(digits, validation=nothing))


@pytest.mark.parametrize("kill_at", [(1, 2), (1, 9), (1, 16), (2, 3)])
def test_it_goes_on_where_it_was_killed(tune, tmp_path, killed, monkeypatch, kill_at):
    (tmp_path / "undisturbed").mkdir()
    expected = tune(recipe(), folder=tmp_path / "undisturbed")
    monkeypatch.setattr(aep, "run_loop", lambda *a, **more: run_loop(*a, save_every_s=-1.0, **more))

    def kill(phase, done, total, loss):
        if (phase, done) == kill_at:
            raise killed

    with pytest.raises(killed):
        tune(recipe(), progress=kill)
    told = []
    result = tune(recipe(), progress=lambda phase, done, total, loss: told.append((phase, done)))
    if kill_at == (1, 2 * STEPS + 1):
        assert told[0] == (1, 2 * STEPS + 1)  # the first two epochs are not trained again
    if kill_at[0] == 2:
        assert told[0] == kill_at  # and no step of the first phase
    assert (result.judged, result.epochs) == (expected.judged, expected.epochs)
    assert result.history == expected.history
    for key, value in result.network.state_dict().items():
        assert torch.equal(value, expected.network.state_dict()[key])


@pytest.mark.parametrize("kill_at", [2, 5, 9, 15])
def test_one_phase_goes_on_where_it_was_killed(tune, tmp_path, killed, monkeypatch, kill_at):
    (tmp_path / "undisturbed").mkdir()
    expected = tune(recipe(phases=1), folder=tmp_path / "undisturbed")
    monkeypatch.setattr(aep, "run_loop", lambda *a, **more: run_loop(*a, save_every_s=-1.0, **more))

    def kill(phase, done, total, loss):
        if done == kill_at:
            raise killed

    with pytest.raises(killed):
        tune(recipe(phases=1), progress=kill)
    result = tune(recipe(phases=1))
    assert (result.history, result.judged) == (expected.history, expected.judged)
    for key, value in result.network.state_dict().items():
        assert torch.equal(value, expected.network.state_dict()[key])


@pytest.mark.parametrize("phases", [1, 2])
def test_what_was_trained_outlives_a_kill_before_its_result_is_stored(tune, tmp_path, killed, phases):
    (tmp_path / "undisturbed").mkdir()
    expected = tune(recipe(phases=phases), folder=tmp_path / "undisturbed")

    def kill(judged):
        raise killed

    with pytest.raises(killed):
        tune(recipe(phases=phases), choose=kill)
    told = []
    result = tune(recipe(phases=phases), progress=lambda *now: told.append(now))
    assert told == []
    assert (result.judged, result.epochs, result.history) == (
        expected.judged,
        expected.epochs,
        expected.history,
    )
    for key, value in result.network.state_dict().items():
        assert torch.equal(value, expected.network.state_dict()[key])
    first, second, found = checkpoints(tmp_path)
    left = {path for path in (first, second, found) if path.exists()}
    assert left == ({first} if phases == 1 else {second, found})


def test_what_another_tuning_left_is_not_gone_on_with(tune, tmp_path, calls):
    tune(recipe())
    assert checkpoints(tmp_path)[2].exists()
    calls.clear()
    tune(recipe())
    assert len(calls) == 1  # the second phase alone
    calls.clear()
    tune(recipe(), tag="another")
    assert len(calls) == 2
