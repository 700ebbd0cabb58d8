"""The weights that a search owns: moved to its data, adapted, kept on disk."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from nat2deploy.errors import UserError
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.weights import SearchWeights
from nat2deploy.supernet.checkpoint import load_supernet, save_supernet
from nat2deploy.training import supernet as training

SETTINGS = SearchSettings(warmup_epochs=1.0, adapt_epochs=1.0, batch_size=20)


def quiet(stage, done, total):
    """Tell nobody."""


def same(one, two) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def begin(space, digits, source, tmp_path):
    """The weights in this test's folder, as a new process would set them up."""
    processes = iter(range(100))

    def weights(*, of=source, settings=SETTINGS, within=space, data=digits, folder=tmp_path):
        torch.manual_seed(next(processes))
        folder.mkdir(exist_ok=True)
        return SearchWeights(folder, [of] if isinstance(of, Path) else of, within, data, settings)

    return weights


@pytest.fixture
def largest(space):
    return lambda step: [space.largest()]


def test_a_super_network_of_the_same_data_is_taken_as_it_is(begin, source, digits):
    told = []
    weights = begin()
    weights.prepare(lambda *now: told.append(now))
    assert told == [] and weights.version == 0
    assert same(weights.supernet, load_supernet(source)[0])
    info = load_supernet(weights.path)[1]
    assert (info.data, info.labels, info.classes) == (digits.name, digits.labels, 10)
    assert (info.mean, info.std) == (digits.mean, digits.std)


def test_other_data_get_a_new_classifier_and_a_warm_up(begin, foreign_source, digits):
    told = []
    weights = begin(of=foreign_source)
    weights.prepare(lambda *now: told.append(now))
    assert told == [("warm-up", 1, 3), ("warm-up", 2, 3), ("warm-up", 3, 3)]
    assert weights.supernet.classes == digits.classes
    assert not torch.equal(
        weights.supernet.stem[0].conv.weight, load_supernet(foreign_source)[0].stem[0].conv.weight
    )
    assert not weights.supernet.training


def test_a_warm_up_of_no_length_leaves_the_body(begin, foreign_source):
    weights = begin(of=foreign_source, settings=SETTINGS.model_copy(update={"warmup_epochs": 0.0}))
    weights.prepare(quiet)
    before = load_supernet(foreign_source)[0]
    assert same(weights.supernet.stages, before.stages) and same(
        weights.supernet.exits["2"][0], before.exits["2"][0]
    )
    assert weights.supernet.exits["2"][1].linear.out_features == 10


def test_the_move_to_new_data_depends_on_the_seed_alone(begin, foreign_source, tmp_path):
    runs = []
    for number, seed in enumerate((3, 3, 4)):
        settings = SETTINGS.model_copy(update={"seed": seed})
        weights = begin(of=foreign_source, settings=settings, folder=tmp_path / str(number))
        weights.prepare(quiet)
        runs.append(weights.supernet)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_killed_warm_up_ends_the_same(begin, foreign_source, tmp_path, killed, monkeypatch, checkpoints):
    whole = begin(of=foreign_source, folder=tmp_path / "whole")
    whole.prepare(quiet)
    if checkpoints:
        monkeypatch.setattr(training, "run_loop", functools.partial(training.run_loop, save_every_s=-1.0))

    def kill(stage, done, total):
        if done == 2:
            raise killed

    folder = tmp_path / "killed"
    with pytest.raises(killed):
        begin(of=foreign_source, folder=folder).prepare(kill)
    assert not (folder / "supernet.safetensors").exists()
    assert (folder / ".adaptation").exists() == checkpoints
    again = begin(of=foreign_source, folder=folder)
    again.prepare(quiet)
    assert same(whole.supernet, again.supernet)


def test_fewer_resolutions_are_written_into_the_file(begin, space, source, tmp_path):
    wide = space.model_copy(update={"resolutions": (16, 24)})
    supernet, info = load_supernet(source)
    path = tmp_path / "wide.safetensors"
    save_supernet(path, supernet, info.model_copy(update={"space": wide}))
    weights = begin(of=path, within=wide.restrict(resolutions=(24,)))
    weights.prepare(quiet)
    assert weights.supernet.space.resolutions == (24,)
    assert load_supernet(weights.path)[1].space.resolutions == (24,)


def test_the_teacher_does_not_go_by_the_statistics_in_the_file(begin, source, tmp_path):
    supernet, info = load_supernet(source)
    with torch.no_grad():
        for name, buffer in supernet.named_buffers():
            if "running" in name:
                buffer.fill_(7.0)
    path = tmp_path / "wrong.safetensors"
    save_supernet(path, supernet, info)
    both = [begin(of=path, folder=tmp_path / "wrong"), begin(folder=tmp_path / "right")]
    for weights in both:
        weights.prepare(quiet)
    assert same(*(weights.teacher for weights in both))


def test_adapting_makes_the_next_version_and_leaves_the_teacher(begin, largest):
    weights = begin()
    weights.prepare(quiet)
    before = load_supernet(weights.path)[0]
    teacher = {key: value.clone() for key, value in weights.teacher.state_dict().items()}
    told = []
    weights.adapt(largest, lambda *now: told.append(now))
    assert told == [("adapt", 1, 3), ("adapt", 2, 3), ("adapt", 3, 3)]
    assert weights.version == 1
    assert not same(weights.supernet, before)
    assert not weights.supernet.training
    held, info = load_supernet(weights.path)
    assert info.version == 1 and same(held, weights.supernet)
    assert all(torch.equal(teacher[key], value) for key, value in weights.teacher.state_dict().items())
    assert not weights.checkpoint.exists()


def test_a_new_process_finds_the_last_version_and_the_first_teacher(begin, largest):
    weights = begin()
    weights.prepare(quiet)
    weights.adapt(largest, quiet)
    again = begin()
    again.prepare(quiet)
    assert again.version == 1
    assert same(again.supernet, weights.supernet)
    assert same(again.teacher, weights.teacher)


def test_adaptation_of_no_length_only_counts(begin, largest):
    weights = begin(settings=SETTINGS.model_copy(update={"adapt_epochs": 0.0}))
    weights.prepare(quiet)
    before = load_supernet(weights.path)[0]
    weights.adapt(largest, quiet)
    assert weights.version == 1 and same(weights.supernet, before)


def test_each_round_and_each_seed_sees_other_batches(begin, largest, tmp_path, monkeypatch):
    seeds = []

    def spy(module, step, settings, data, **more):
        seeds.append(settings.seed)

    monkeypatch.setattr(training, "run_loop", spy)
    for seed in (0, 1):
        settings = SETTINGS.model_copy(update={"seed": seed})
        weights = begin(settings=settings, folder=tmp_path / str(seed))
        weights.prepare(quiet)
        for _ in range(3):
            weights.adapt(largest, quiet)
    assert len(set(seeds)) == 6


def test_an_interrupted_adaptation_leaves_the_last_whole_version(begin, largest):
    weights = begin()
    weights.prepare(quiet)
    before = load_supernet(weights.path)[0]

    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.adapt(largest, interrupt)
    assert weights.version == 0
    assert same(weights.supernet, before)
    assert not weights.supernet.training


def test_batches_are_no_larger_than_the_training_split(begin, largest):
    told = []
    weights = begin(settings=SETTINGS.model_copy(update={"batch_size": 10_000}))
    weights.prepare(quiet)
    weights.adapt(largest, lambda *now: told.append(now))
    assert told == [("adapt", 1, 1)]


@pytest.mark.parametrize("content", [None, b"", b"no super-network"])
def test_a_super_network_that_cannot_be_read_is_named(begin, tmp_path, content):
    path = tmp_path / "given.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"given\.safetensors"):
        begin(of=path).prepare(quiet)
