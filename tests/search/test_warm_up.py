"""The warm-up in three phases: its numbers, what each phase trains, and that it survives a kill."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from small_searches import SETTINGS, save_fresh

from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.warm_up import WARM_UPS, three_phases
from nat2deploy.search.weights import SearchWeights
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.training import supernet as training

THREE = SETTINGS.model_copy(
    update={
        "warmup": "three-phase",
        "warmup_epochs": 1.0,
        "warmup_subnets": 2,
        "exit_weights": "descending",
    }
)


def quiet(stage, done, total):
    """Tell nobody."""


def same(one, two) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("preset", ["nat", "nat2"])
def test_the_authors_phases_line_by_line(preset):
    space = load_space("ofav2-mbv3-ee-d")
    settings = SearchSettings(preset=preset)
    first, second, third = three_phases(space, (1.0, 1.2), settings)
    for phase, width in ((first, 1.0), (second, 1.2)):
        assert phase.widths == (width,) and not phase.distil and not phase.sort_channels
        assert (phase.epochs, phase.learning_rate, phase.warmup_epochs) == (100.0, 7.5e-3, 5.0)
        assert phase.subnets_per_step == 1
        drawn = phase.choices.sample(space, width, 224, np.random.default_rng(0))
        assert drawn == space.full(224, width) and drawn.exits == (1, 2, 3, 4, 5)
    assert third.widths == (1.0, 1.2) and third.distil and third.sort_channels
    assert (third.epochs, third.learning_rate, third.warmup_epochs) == (150.0, 7.5e-3, 10.0)
    assert third.subnets_per_step == 4
    assert third.choices.kernels == space.kernels and third.choices.exits == space.exit_states


def test_fewer_epochs_keep_the_authors_proportions():
    settings = SearchSettings(preset="nat2", warmup_epochs=3.0)
    phases = three_phases(load_space("nano"), (1.0,), settings)
    assert [phase.name for phase in phases] == ["full w1", "sub-networks"]
    assert [phase.epochs for phase in phases] == pytest.approx([2.0, 3.0])
    assert [phase.warmup_epochs for phase in phases] == pytest.approx([0.1, 0.2])
    given = SearchSettings(preset="nat2", warmup_epochs=3.0, warmup_full_epochs=1.0)
    assert [phase.epochs for phase in three_phases(load_space("nano"), (1.0,), given)] == [1.0, 3.0]


@pytest.fixture
def begin_weights(digits, two_widths, foreign_pair):
    def weights(folder, *, of=foreign_pair, within=two_widths, settings=THREE):
        folder.mkdir(exist_ok=True)
        return SearchWeights(folder, of, within, digits, settings)

    return weights


@pytest.fixture(scope="module")
def whole(digits, two_widths, foreign_pair, tmp_path_factory):
    """Weights that were warmed up undisturbed, and what was told."""
    held = SearchWeights(tmp_path_factory.mktemp("whole"), foreign_pair, two_widths, digits, THREE)
    told = []
    held.prepare(lambda *now: told.append(now))
    return held, told


def test_the_full_networks_are_trained_one_after_the_other_and_then_all(whole):
    stages = list(dict.fromkeys(stage for stage, _, _ in whole[1]))
    assert stages == ["warm-up full w1", "warm-up full w2", "warm-up sub-networks"]
    assert [(done, total) for stage, done, total in whole[1] if stage == stages[2]] == [
        (1, 3),
        (2, 3),
        (3, 3),
    ]
    assert not (whole[0].path.parent / "warm-up.safetensors").exists()
    assert whole[0].version == 0


def test_the_teacher_is_the_widest_full_network_as_its_phase_left_it(whole, two_widths, digits):
    teacher = load_supernet(whole[0].path.with_name("teacher.safetensors"))[0]
    after = load_supernet(whole[0].path)[0]
    assert not same(teacher, after)
    assert (
        whole[0].teacher.network.exits["2"][1].linear.in_features
        == teacher.at(2.0).exits["2"][1].linear.in_features
    )
    full = teacher.extract(two_widths.full(16, 2.0))
    weights = dict(whole[0].teacher.network.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in full.named_parameters())


def test_each_phase_trains_what_it_says(begin_weights, two_widths, tmp_path, monkeypatch):
    found = []
    loop = training.run_loop

    def spy(module, step, settings, data, **more):
        before = {key: value.clone() for key, value in module.state_dict().items() if "running" not in key}
        done = loop(module, step, settings, data, **more)
        state = module.state_dict()
        moved = {key.split(".")[1] for key, value in before.items() if not torch.equal(value, state[key])}
        found.append((moved, settings.weight_decay, settings.clip))
        return done

    monkeypatch.setattr(training, "run_loop", spy)
    begin_weights(tmp_path / "run").prepare(quiet)
    assert found == [({"0"}, 3e-4, 5.0), ({"1"}, 3e-4, 5.0), ({"0", "1"}, 3e-4, 5.0)]


def test_channels_are_sorted_before_the_last_phase_only(begin_weights, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        "nat2deploy.supernet.several_widths.SuperNetworks.sort_channels", lambda self: said.append("sorted")
    )
    begin_weights(tmp_path / "run").prepare(
        lambda stage, done, total: said.append(stage) if done == 1 else None
    )
    assert said == ["warm-up full w1", "warm-up full w2", "sorted", "warm-up sub-networks"]


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("stage", ["full w1", "full w2", "sub-networks"])
def test_killed_in_any_phase_it_ends_the_same(
    whole, begin_weights, tmp_path, killed, monkeypatch, stage, checkpoints
):
    if checkpoints:
        monkeypatch.setattr(training, "run_loop", functools.partial(training.run_loop, save_every_s=-1.0))

    def kill(now, done, total):
        if (now, done) == (f"warm-up {stage}", 2):
            raise killed

    with pytest.raises(killed):
        begin_weights(tmp_path / "run").prepare(kill)
    assert not (tmp_path / "run" / "supernet.safetensors").exists()
    again = begin_weights(tmp_path / "run")
    told = []
    again.prepare(lambda now, done, total: told.append(now))
    assert told[0] == f"warm-up {stage}"  # what was done is not done again
    assert same(again.supernet, whole[0].supernet) and same(again.teacher, whole[0].teacher)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "supernet.safetensors",
        "teacher.safetensors",
    ]


def test_one_width_has_two_phases(begin_weights, foreign_source, space, tmp_path):
    told = []
    held = begin_weights(tmp_path / "run", of=[foreign_source], within=space)
    held.prepare(lambda stage, done, total: told.append(stage))
    assert list(dict.fromkeys(told)) == ["warm-up full w1", "warm-up sub-networks"]
    assert held.supernet.classes == 10


def test_what_knows_the_data_needs_none(begin_weights, two_widths, tmp_path):
    known = [save_fresh(tmp_path / f"{w}.safetensors", two_widths, width=w) for w in (1.0, 2.0)]
    told = []
    begin_weights(tmp_path / "run", of=known).prepare(lambda *now: told.append(now))
    assert told == []


def test_every_warm_up_can_be_named_and_no_other():
    for name in WARM_UPS:
        assert SearchSettings(warmup=name).warmup == name
    with pytest.raises(ValueError, match="warmup"):
        SearchSettings(warmup="cold")


@pytest.mark.parametrize("name", WARM_UPS)
def test_settings_of_the_losses_reach_each_warm_up(begin_weights, tmp_path, monkeypatch, name):
    seen = []
    step = training.sub_network_step

    def spy(supernet, sampler, teacher, ratio, smoothing, order, *more, **named):
        seen.append((smoothing, order))
        return step(supernet, sampler, teacher, ratio, smoothing, order, *more, **named)

    monkeypatch.setattr(training, "sub_network_step", spy)
    settings = THREE.model_copy(update={"warmup": name, "label_smoothing": 0.2})
    held = begin_weights(tmp_path / "run", settings=settings)
    held.prepare(quiet)
    held.adapt(lambda step: [held.supernet.space.largest()], quiet)
    assert len(seen) > 1 and set(seen) == {(0.2, "descending")}
