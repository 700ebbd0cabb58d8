"""The training loop: its rates and decay by hand, and a result that no interruption changes."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from small_loops import SETTINGS, network, plain_step, same, train
from torch import nn
from torch.nn import functional as F

from nat2deploy.errors import UserError
from nat2deploy.training.loop import EpochDone, LoopSettings


# 100 images in batches of 25: four steps an epoch.
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("kill_at", [1, 3, 4, 7, 9])
def test_a_killed_training_goes_on_at_its_step_and_ends_the_same(
    digits, tmp_path, killed, kill_at, optimiser
):
    settings = LoopSettings(2.5, 0.05, 25, warmup_epochs=0.5, optimiser=optimiser, clip=1.0, seed=3)
    whole = network()
    assert train(whole, digits, settings) == 10
    checkpoint = tmp_path / "sub" / "training"
    first = network()
    with pytest.raises(killed):
        train(
            first,
            digits,
            settings,
            step=plain_step(first, kill_at=kill_at, killed=killed),
            checkpoint=checkpoint,
            save_every_s=-1.0,
        )
    assert checkpoint.exists()
    seen: list[tuple[int, int]] = []
    second = network(seed=8)  # its own weights must not matter
    steps = train(second, digits, settings, step=plain_step(second, seen), checkpoint=checkpoint)
    assert steps == 10
    assert [index for index, _ in seen] == list(range(kill_at, 10))
    assert same(whole, second)
    assert not checkpoint.exists()


def test_killed_twice_ends_the_same(digits, tmp_path, killed):
    whole = network()
    train(whole, digits)
    for kill_at in (2, 6, None):
        module = network()
        step = plain_step(module, kill_at=kill_at, killed=killed)
        try:
            train(module, digits, step=step, checkpoint=tmp_path / "c", save_every_s=-1.0)
        except killed:
            assert kill_at is not None
    assert same(whole, module)


class Told:
    """A watch that remembers what it was told."""

    stop = False

    def __init__(self):
        self.epochs: list[EpochDone] = []

    def epoch_done(self, done):
        self.epochs.append(done)

    def state(self):
        return str(len(self.epochs))

    def restore(self, state):
        assert len(self.epochs) == 0
        self.epochs = [EpochDone(0.0, 0.0, 0.0)] * int(state)


def test_a_watch_is_told_each_epochs_rate_and_mean_loss(digits):
    module, watch, losses = network(), Told(), []

    def step(images, targets, index):
        loss = plain_step(module)(images, targets, index)
        losses.append(float(loss.detach()))
        return loss

    train(module, digits, step=step, watch=watch)
    assert [done.epochs for done in watch.epochs] == [1.0, 2.0, 2.5]
    means = [sum(losses[:4]) / 4, sum(losses[4:8]) / 4, sum(losses[8:]) / 2]
    assert [done.loss for done in watch.epochs] == pytest.approx(means, rel=1e-6)
    # A warm-up of four steps, then a cosine of six.
    rates = [0.1, *(0.05 * (1 + math.cos(math.pi * k / 6)) for k in (3, 5))]
    assert [done.learning_rate for done in watch.epochs] == pytest.approx(rates)


@pytest.mark.parametrize("kill_at", [2, 4, 6, 9])
def test_a_killed_trainings_watch_is_told_the_same(digits, tmp_path, killed, kill_at):
    whole, checkpoint = Told(), tmp_path / "training"
    train(network(), digits, watch=whole)
    module = network()
    with pytest.raises(killed):
        step = plain_step(module, kill_at=kill_at, killed=killed)
        train(module, digits, step=step, checkpoint=checkpoint, save_every_s=-1.0, watch=Told())
    again = Told()
    train(network(), digits, checkpoint=checkpoint, watch=again)
    assert again.epochs[kill_at // 4 :] == whole.epochs[kill_at // 4 :]


def test_a_training_killed_before_its_first_checkpoint_starts_anew(digits, tmp_path, killed):
    whole = network()
    train(whole, digits)
    module = network()
    with pytest.raises(killed):
        train(module, digits, step=plain_step(module, kill_at=5, killed=killed), checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()
    again = network()
    train(again, digits, checkpoint=tmp_path / "c")
    assert same(whole, again)


def kill_after(digits, checkpoint, settings=SETTINGS, tag="", steps=3):
    module = network()
    with pytest.raises(KeyboardInterrupt):
        train(
            module,
            digits,
            settings,
            step=plain_step(module, kill_at=steps),
            checkpoint=checkpoint,
            tag=tag,
            save_every_s=-1.0,
        )


@pytest.mark.parametrize(
    ("tag", "settings"),
    [("two", SETTINGS), ("one", LoopSettings(2.5, 0.2, 25)), ("one", LoopSettings(2.5, 0.1, 20))],
)
def test_a_checkpoint_of_another_training_is_left_alone(digits, tmp_path, tag, settings):
    kill_after(digits, tmp_path / "c", tag="one")
    seen: list[tuple[int, int]] = []
    module = network()
    train(module, digits, settings, step=plain_step(module, seen), checkpoint=tmp_path / "c", tag=tag)
    assert seen[0][0] == 0


def test_a_checkpoint_of_other_images_is_left_alone(digits, tmp_path):
    kill_after(digits, tmp_path / "c")
    seen: list[tuple[int, int]] = []
    module = network()
    step = plain_step(module, seen)
    train(module, digits, step=step, checkpoint=tmp_path / "c", split=digits.validation)
    assert seen[0][0] == 0


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_kept_checkpoint_holds_what_was_trained(digits, tmp_path, ema):
    settings = LoopSettings(2.5, 0.05, 25, ema=ema)
    whole, checkpoint, told = network(), tmp_path / "training", Told()
    assert train(whole, digits, settings, checkpoint=checkpoint, keep=True, watch=told) == 10
    seen: list[tuple[int, int]] = []
    again, retold = network(seed=8), Told()
    more = {"step": plain_step(again, seen), "checkpoint": checkpoint, "keep": True, "watch": retold}
    assert train(again, digits, settings, **more) == 10
    assert seen == [] and same(whole, again) and len(retold.epochs) == len(told.epochs) == 3
    assert checkpoint.exists()
    train(network(), digits, settings, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_a_killed_training_goes_on_on_another_device(digits, tmp_path):
    kill_after(digits, tmp_path / "c")
    seen: list[tuple[int, int]] = []
    module = network()
    train(
        module,
        digits,
        replace(SETTINGS, device="cpu:0"),
        step=plain_step(module, seen),
        checkpoint=tmp_path / "c",
    )
    assert seen[0][0] == 3


def test_in_bfloat16_where_it_is_trained_makes_a_difference(digits, tmp_path):
    half = replace(SETTINGS, mixed_precision=True)
    kill_after(digits, tmp_path / "c", settings=half)
    seen: list[tuple[int, int]] = []
    module = network()
    settings = replace(half, device="cpu:0")
    train(module, digits, settings, step=plain_step(module, seen), checkpoint=tmp_path / "c")
    assert seen[0][0] == 0


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a zip"])
def test_a_broken_checkpoint_is_named(digits, tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint .*c cannot be read"):
        train(network(), digits, checkpoint=tmp_path / "c")


def test_memory_that_runs_out_is_no_broken_checkpoint(digits, tmp_path, monkeypatch):
    kill_after(digits, tmp_path / "c")

    def full(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(torch, "load", full)
        train(network(), digits, checkpoint=tmp_path / "c")
    assert (tmp_path / "c").exists()


def test_a_checkpoint_cut_short_or_of_another_network_is_named(digits, tmp_path):
    kill_after(digits, tmp_path / "c")
    whole = (tmp_path / "c").read_bytes()
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    with pytest.raises(UserError, match="cannot be read"):
        train(other, digits, checkpoint=tmp_path / "c")
    (tmp_path / "c").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="delete it"):
        train(network(), digits, checkpoint=tmp_path / "c")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_is_named_before_it_reaches_the_weights(digits, bad):
    module = network()

    def step(images, targets, index):
        loss = F.cross_entropy(module(images), targets) * (bad if index == 2 else 1.0)
        loss.backward()
        return loss

    with pytest.raises(UserError, match=r"diverged at step 2.*lower the learning rate"):
        train(module, digits, step=step)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_time_runs_out_after_a_whole_step(digits, tmp_path):
    module = network()
    assert train(module, digits, checkpoint=tmp_path / "c", time_limit_s=-1.0) == 1
    assert not (tmp_path / "c").exists()


def test_a_short_training_is_one_step(digits):
    assert train(network(), digits, LoopSettings(0.01, 0.1, 25)) == 1


def test_fewer_images_than_a_batch_are_refused(digits):
    with pytest.raises(UserError, match="100 training images are fewer than one batch of 101"):
        train(network(), digits, LoopSettings(1.0, 0.1, 101))


def test_a_full_disk_ends_training_with_the_checkpoint_before(digits, tmp_path, full_disk):
    module, checkpoint = network(), tmp_path / "training"

    def step(images, targets, index):
        if index == 3:
            limit.enter_context(full_disk(100))
        return plain_step(module)(images, targets, index)

    with ExitStack() as limit, pytest.raises(UserError, match=r"cannot write .*training"):
        train(module, digits, step=step, checkpoint=checkpoint, save_every_s=-1.0)
    assert list(tmp_path.iterdir()) == [checkpoint]
    seen = []
    train(network(), digits, step=plain_step(module, seen), checkpoint=checkpoint)
    assert seen[0][0] == 3


def nan_gradients(module, at):
    """A step whose loss is finite and whose gradients are not."""

    def step(images, targets, index):
        loss = plain_step(module)(images, targets, index)
        if index == at:
            module[0].weight.grad.fill_(math.nan)
        return loss

    return step


@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_that_are_no_numbers_in_the_last_step_are_found(digits, clip):
    module, told = network(), Told()
    settings = LoopSettings(1.0, 0.1, 25, clip=clip)
    with pytest.raises(UserError, match=r"diverged at step 4 \(.*weight is not finite\); lower the learning"):
        train(module, digits, settings, step=nan_gradients(module, at=3), watch=told)
    assert told.epochs == []  # nobody judges such weights, and keeps what was found


def test_weights_that_are_no_numbers_are_never_in_a_checkpoint(digits, tmp_path):
    module, checkpoint = network(), tmp_path / "training"
    with pytest.raises(UserError, match="diverged at step 3"):
        train(module, digits, step=nan_gradients(module, at=2), checkpoint=checkpoint, save_every_s=-1.0)
    held = torch.load(checkpoint, weights_only=True)
    assert held["done"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in held["module"].values())
