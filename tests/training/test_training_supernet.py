"""Progressive shrinking on real digits, killed wherever it hurts."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch

from nat2deploy.errors import UserError
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, save_supernet, supernet_info
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training import supernet as module
from nat2deploy.training import teacher as teacher_module
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.losses import distillation_loss
from nat2deploy.training.schedule import progressive_shrinking
from nat2deploy.training.supernet import (
    ShrinkingSettings,
    adapt,
    sub_network_step,
    train_supernet,
)
from nat2deploy.training.teacher import full_teacher

NAMES = ("full", "kernel", "depth-1", "expansion-1")


def fresh(space, seed=0) -> SuperNetwork:
    torch.manual_seed(seed)
    return SuperNetwork(space, 1.0, 10)


def same(one, two) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def train(space, digits):
    """Train the tiny super-network into a folder; returns (super-network, description, steps told of)."""

    def trained(folder, *, at=None, recipe="r", seed=0, ratio=1.0, weights=0, **settings):
        told: list[tuple[str, int, int]] = []

        def progress(phase, done, total, loss):
            told.append((phase.name, done, total))
            if at is not None:
                at(phase.name, done)

        supernet = fresh(space, weights)
        info = SuperNetworkInfo(
            space=supernet.space,
            width=1.0,
            classes=10,
            data=digits.name,
            labels=digits.labels,
            recipe=recipe,
        )
        result = train_supernet(
            supernet,
            progressive_shrinking(space, epochs=3.0, learning_rate=0.05),
            digits,
            info,
            folder / "s.safetensors",
            ShrinkingSettings(batch_size=25, seed=seed, distillation_ratio=ratio, **settings),
            progress=progress,
        )
        return *result, told

    return trained


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return (folder, *train(folder))


def test_every_phase_is_done_once_and_written(undisturbed):
    folder, supernet, info, told = undisturbed
    assert info.phases == NAMES
    assert list(dict.fromkeys(name for name, _, _ in told)) == list(NAMES)
    for name in NAMES:
        steps = [(done, total) for phase, done, total in told if phase == name]
        assert [done for done, _ in steps] == list(range(1, steps[0][1] + 1))
    loaded, written = load_supernet(folder / "s.safetensors")
    assert written == info and same(loaded, supernet)
    assert not supernet.training


def test_nothing_but_the_super_network_is_left_behind(undisturbed):
    assert [path.name for path in undisturbed[0].iterdir()] == ["s.safetensors"]


def test_the_file_holds_each_finished_phase(train, tmp_path):
    seen = {}

    def look(name, done):
        out = tmp_path / "s.safetensors"
        seen.setdefault(name, supernet_info(out).phases if out.exists() else ())

    train(tmp_path, at=look)
    assert seen == {name: NAMES[:number] for number, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("name", "step", "checkpoints"),
    [
        ("full", 2, True),
        ("full", 2, False),
        ("kernel", 1, False),
        ("kernel", 1, True),
        ("depth-1", 2, True),
        ("expansion-1", 1, False),
        ("expansion-1", 2, True),
    ],
)
def test_killed_inside_a_phase_it_ends_the_same(
    train, undisturbed, tmp_path, killed, monkeypatch, name, step, checkpoints
):
    if checkpoints:
        eager = functools.partial(module.run_loop, save_every_s=-1.0)
        monkeypatch.setattr(module, "run_loop", eager)

    def kill(phase, done):
        if (phase, done) == (name, step):
            raise killed

    with pytest.raises(killed):
        train(tmp_path, at=kill)
    supernet, info, told = train(tmp_path)
    assert same(supernet, undisturbed[1]) and info == undisturbed[2]
    # With checkpoints the killed step alone is done again, without them its phase; nothing before it.
    assert told[0][:2] == (name, step if checkpoints else 1)
    assert told == undisturbed[3][-len(told) :]


@pytest.mark.parametrize("phase", NAMES)
@pytest.mark.parametrize("written", [False, True])
def test_killed_when_a_phase_is_trained_it_trains_no_step_of_it_again(
    train, undisturbed, tmp_path, killed, monkeypatch, phase, written
):
    def saves_and_dies(path, supernet, info):
        dies = info.phases[-1:] == (phase,) and path.suffix == ".safetensors"
        if written or not dies:
            save_supernet(path, supernet, info)
        if dies:
            raise killed

    with monkeypatch.context() as patch, pytest.raises(killed):
        patch.setattr(module, "save_supernet", saves_and_dies)
        train(tmp_path)
    *found, told = train(tmp_path)
    assert same(found[0], undisturbed[1]) and found[1] == undisturbed[2]
    assert list(dict.fromkeys(name for name, _, _ in told)) == list(NAMES[NAMES.index(phase) + 1 :])
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_a_finished_training_is_not_done_again(train, undisturbed):
    supernet, info, told = train(undisturbed[0])
    assert told == [] and info == undisturbed[2] and same(supernet, undisturbed[1])


def test_a_file_of_another_recipe_is_trained_over(train, undisturbed, tmp_path):
    train(tmp_path, recipe="other", weights=1)
    supernet, info, told = train(tmp_path)
    assert len(told) == len(undisturbed[3])
    assert info == undisturbed[2] and same(supernet, undisturbed[1])


def test_a_teacher_left_by_another_training_teaches_nothing(train, undisturbed, tmp_path, killed):
    def kill(phase, done):
        if phase == "depth-1":
            raise killed

    with pytest.raises(killed):
        train(tmp_path, at=kill, recipe="other", weights=1)
    assert (tmp_path / "s.safetensors.teacher").exists()
    supernet, _, _ = train(tmp_path)
    assert same(supernet, undisturbed[1])


def test_a_teacher_that_is_gone_is_told_and_no_other_one_teaches(train, tmp_path, killed):
    def kill(phase, done):
        if phase == "depth-1":
            raise killed

    with pytest.raises(killed):
        train(tmp_path, at=kill)
    (tmp_path / "s.safetensors.teacher").unlink()
    with pytest.raises(UserError, match=r"s\.safetensors\.teacher is missing, the teacher of .*put it back"):
        train(tmp_path)


def test_a_checkpoint_left_by_another_training_is_not_gone_on_with(
    train, undisturbed, tmp_path, killed, monkeypatch
):
    def kill(phase, done):
        if done == 2:
            raise killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_loop", functools.partial(module.run_loop, save_every_s=-1.0))
        with pytest.raises(killed):
            train(tmp_path, at=kill, recipe="other", weights=1)
    assert (tmp_path / ".s.safetensors.training").exists()
    supernet, _, told = train(tmp_path)
    assert told[0] == ("full", 1, 4)
    assert same(supernet, undisturbed[1])


def test_channels_are_sorted_when_expansions_open_and_not_again(train, tmp_path, monkeypatch):
    told, sorts = [], []
    plain = SuperNetwork.sort_channels

    def sort(supernet):
        sorts.append(told[-1] if told else None)
        plain(supernet)

    monkeypatch.setattr(SuperNetwork, "sort_channels", sort)
    train(tmp_path, at=lambda phase, done: told.append(phase))
    assert sorts == ["depth-1"]  # the phase before


@pytest.fixture
def teachers(monkeypatch):
    """Each phase's teacher and distillation ratio."""
    seen = []

    def step(supernet, sampler, teacher, ratio, *more, **named):
        weights = None if teacher is None else {k: v.clone() for k, v in teacher.state_dict().items()}
        seen.append((teacher, weights, ratio))
        return sub_network_step(supernet, sampler, teacher, ratio, *more, **named)

    monkeypatch.setattr(module, "sub_network_step", step)
    return seen


def test_the_teacher_is_the_full_network_as_the_first_phase_left_it_and_stays_so(
    train, tmp_path, teachers, space
):
    kept = {}

    def keep(phase, done):
        if phase == "kernel" and done == 1:
            kept["full"] = load_supernet(tmp_path / "s.safetensors")[0].extract(space.largest())

    train(tmp_path, at=keep, ratio=0.5)
    assert teachers[0][0] is None and len(teachers) == len(NAMES)
    for teacher, at_first, ratio in teachers[1:]:
        assert ratio == 0.5
        for (name, now), full in zip(teacher.named_parameters(), kept["full"].parameters(), strict=True):
            assert torch.equal(now, full) and torch.equal(now, at_first[name])
        assert not teacher.training
        assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())


def test_the_teachers_statistics_are_found_once_a_resolution_not_a_phase(train, tmp_path, monkeypatch, space):
    found = []
    plain = teacher_module.recalibrate

    def recalibrate(network, images):
        found.append(network)
        plain(network, images)

    monkeypatch.setattr(teacher_module, "recalibrate", recalibrate)
    train(tmp_path)
    assert 1 <= len(found) <= len(space.resolutions) < len(NAMES) - 1


def test_a_resumed_training_has_the_same_teacher(train, tmp_path, teachers, killed):
    def kill(phase, done):
        if phase == "expansion-1":
            raise killed

    with pytest.raises(killed):
        train(tmp_path, at=kill)
    train(tmp_path)
    first, last = teachers[1][0], teachers[-1][0]
    assert first is not last
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(first(images), last(images))


@pytest.mark.parametrize("summed", [False, True])
def test_a_step_averages_or_sums_the_gradients_of_its_sub_networks(space, summed):
    supernet = fresh(space)
    chosen = [space.largest(16), space.smallest(16)]
    images, targets = torch.randn(6, 3, 16, 16), torch.arange(6)
    teacher = full_teacher(fresh(space, seed=1))
    with torch.no_grad():
        guide = teacher(images)
    expected = torch.zeros(())
    for architecture in chosen:
        expected = expected + distillation_loss(supernet(images, architecture), targets, guide, 0.7)
    expected = expected if summed else expected / 2
    wanted = torch.autograd.grad(expected, supernet.exits["2"][1].linear.weight)[0]
    loss = sub_network_step(supernet, lambda _: chosen, teacher, 0.7, summed=summed)(images, targets, 0)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(supernet.exits["2"][1].linear.weight.grad, wanted)


def test_training_beats_chance_for_the_largest_and_the_smallest(train, tmp_path, digits, space):
    supernet, _, _ = train(tmp_path)
    settings = LoopSettings(epochs=10.0, learning_rate=0.05, batch_size=25)
    both = [space.largest(16), space.smallest(16)]
    adapt(supernet, lambda step: both, digits, settings)
    evaluator = SubNetworkEvaluator(digits, seed=0)
    assert not supernet.training
    assert min(evaluator(supernet, architecture).top1 for architecture in both) > 0.2  # chance: 0.1 ± 0.015


def test_adaptation_follows_the_sampler_and_repeats_itself(space, digits):
    settings = LoopSettings(epochs=1.0, learning_rate=0.05, batch_size=25)
    asked = []

    def sample(step):
        asked.append(step)
        rng = np.random.default_rng(step)
        return [space.smallest(int(rng.choice(space.resolutions)))]

    supernets = [fresh(space), fresh(space)]
    for supernet in supernets:
        adapt(supernet, sample, digits, settings, teacher=full_teacher(fresh(space, 2)))
    assert same(*supernets)
    assert set(asked) == {0, 1, 2, 3}
    assert not same(supernets[0], fresh(space))
    # What the smallest does not hold was never touched.
    untouched = supernets[0].stages[1][1].state_dict()
    assert all(
        torch.equal(value, fresh(space).stages[1][1].state_dict()[key]) for key, value in untouched.items()
    )


@pytest.fixture(scope="module")
def early(space):
    """The tiny space with an exit behind each stage, dense skips and parallel branches."""
    return space.model_copy(
        update={"exits": "one", "dense_skips": True, "parallel_branches": True, "depths": (1, 2, 3)}
    )


def shrink(space, digits, folder, **settings):
    supernet = fresh(space)
    info = SuperNetworkInfo(space=supernet.space, width=1.0, classes=10, recipe=str(settings))
    phases = progressive_shrinking(space, epochs=4.0, learning_rate=0.05)
    return train_supernet(
        supernet, phases, digits, info, folder / "s.safetensors", ShrinkingSettings(batch_size=25, **settings)
    )


def test_all_of_ofav2_is_trained_with_every_option(early, digits, tmp_path):
    supernet, info = shrink(
        early, digits, tmp_path, teacher="extracted", sandwich=True, ema=0.9, clip=1.0, label_smoothing=0.0
    )
    assert info.phases == (
        "full", "kernel", "branches-1", "branches-2", "exits-1", "depth-1", "depth-2", "expansion-1"
    )  # fmt: skip
    start = fresh(early)
    untouched = [
        name
        for (name, now), before in zip(supernet.named_parameters(), start.parameters(), strict=True)
        if torch.equal(now, before)
    ]
    assert untouched == []


def test_the_full_network_learns_all_exits_at_once_with_ascending_weights(early):
    supernet = fresh(early)
    images, targets = torch.randn(6, 3, 16, 16), torch.arange(6)
    full = early.full(16)
    loss = sub_network_step(supernet, lambda _: [full], None, 1.0)(images, targets, 0)
    first, second = (distillation_loss(x, targets, None, 1.0) for x in supernet.exit_logits(images, full))
    torch.testing.assert_close(loss, (first / 3 + 2 * second / 3).detach(), rtol=1e-3, atol=1e-4)
    assert all(exit_[1].linear.weight.grad is not None for exit_ in supernet.exits.values())


def test_the_teacher_of_several_exits_is_their_weighted_sum(early):
    supernet = fresh(early).eval()
    images, full = torch.randn(4, 3, 16, 16), early.full(16)
    with torch.no_grad():
        first, second = supernet.exit_logits(images, full)
        torch.testing.assert_close(
            full_teacher(supernet)(images), first / 3 + 2 * second / 3, rtol=1e-4, atol=1e-5
        )


def test_an_extracted_teacher_is_of_the_phase_before_with_statistics_of_its_own(
    early, digits, tmp_path, teachers
):
    shrink(early, digits, tmp_path, teacher="extracted")
    found = [teacher for teacher, _, _ in teachers if teacher is not None]
    images = torch.randn(4, 3, 16, 16)
    guides = [teacher(images) for teacher in found]
    assert len(found) == 7 and not any(torch.equal(a, b) for a, b in itertools.pairwise(guides))
    for teacher in found:
        assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())


def test_the_sandwich_holds_the_largest_the_smallest_and_a_random_one(early):
    supernet = fresh(early)
    phase = progressive_shrinking(early, epochs=4.0, learning_rate=0.05)[-1]
    sampler = module._phase_sampler(supernet, phase, ShrinkingSettings(25, sandwich=True), 3)
    for step in range(5):
        chosen = sampler(step)
        resolution = chosen[0].resolution
        assert chosen[0] == phase.choices.extreme(early, 1.0, resolution, -1)
        assert chosen[1] == phase.choices.extreme(early, 1.0, resolution, 0)
        assert len(chosen) == 2 + phase.subnets_per_step
