"""The training loop: its rates and decay by hand, and a result that no interruption changes."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nat2deploy.errors import UserError
from nat2deploy.training.loop import EpochDone, LoopSettings, run_loop
from nat2deploy.training.optimisers import EagerSGD

# 100 images in batches of 25: four steps an epoch.
SETTINGS = LoopSettings(epochs=2.5, learning_rate=0.1, batch_size=25, warmup_epochs=1.0, weight_decay=0.01)


def network(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def plain_step(module, seen=None, kill_at=None, killed=KeyboardInterrupt):
    def step(images, targets, index):
        if index == kill_at:
            raise killed
        if seen is not None:
            seen.append((index, images.shape[-1]))
        loss = F.cross_entropy(module(images), targets)
        loss.backward()
        return loss

    return step


def train(module, data, settings=SETTINGS, **more):
    step = more.pop("step", None) or plain_step(module)
    return run_loop(module, step, settings, data, **{"resolution": lambda _: 8, **more})


def same(one: nn.Module, two: nn.Module) -> bool:
    """Whether weights and BN statistics agree to the last bit."""
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


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


@pytest.fixture
def steps_seen(monkeypatch):
    """What the optimiser was given at each step: rates, decays, and the norm of all gradients."""
    seen: list[tuple[list[float], list[float], float]] = []
    plain = EagerSGD.step

    def step(self, *arguments, **more):
        groups = self.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients])))
        seen.append(([g["lr"] for g in groups], [g["weight_decay"] for g in groups], norm))
        return plain(self, *arguments, **more)

    monkeypatch.setattr(EagerSGD, "step", step)
    return seen


def test_rates_warm_up_in_line_and_fall_as_a_cosine(digits, steps_seen):
    train(network(), digits, LoopSettings(2.5, 0.1, 25, warmup_epochs=1.0, final_rate=0.02))
    rise = [0.025, 0.05, 0.075, 0.1]
    fall = [0.02 + 0.08 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert [rates[0] for rates, _, _ in steps_seen] == pytest.approx(rise + fall)
    assert all(rates[0] == rates[1] for rates, _, _ in steps_seen)
    assert fall[0] == pytest.approx(0.1) and fall[3] == pytest.approx(0.06)


def test_without_warm_up_the_first_step_has_the_full_rate(digits, steps_seen):
    train(network(), digits, LoopSettings(1.0, 0.1, 25))
    expected = [0.1, 0.1 * (1 + math.sqrt(0.5)) / 2, 0.05, 0.1 * (1 - math.sqrt(0.5)) / 2]
    assert [rates[0] for rates, _, _ in steps_seen] == pytest.approx(expected)


def test_only_matrices_decay(digits):
    module = network()
    with torch.no_grad():
        module[5].bias.fill_(0.5)
        module[1].bias.fill_(0.5)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}

    def step(images, targets, index):
        loss = module(images).sum() * 0.0
        loss.backward()
        return loss

    train(module, digits, LoopSettings(0.25, 0.1, 25, weight_decay=0.2), step=step)  # one step
    kept = 1 - 0.1 * 0.2 * 1.9  # Nesterov's first step goes 1 + 0.9 times the gradient
    for name, parameter in module.named_parameters():
        if name in ("0.weight", "5.weight"):
            torch.testing.assert_close(parameter, before[name] * kept)
        else:
            assert torch.equal(parameter, before[name]), name


def test_gradients_are_clipped_to_the_norm(digits, steps_seen):
    module = network()

    def step(images, targets, index):
        loss = F.cross_entropy(module(images), targets) * 100.0
        loss.backward()
        return loss

    train(module, digits, LoopSettings(1.0, 1e-4, 25, clip=0.5), step=step)
    assert [norm for _, _, norm in steps_seen] == pytest.approx([0.5] * 4, rel=1e-3)
    steps_seen.clear()
    train(module, digits, LoopSettings(1.0, 1e-4, 25), step=step)
    assert min(norm for _, _, norm in steps_seen) > 0.5


def test_each_batch_has_the_resolution_of_its_step(digits):
    seen: list[tuple[int, int]] = []
    module = network()
    train(module, digits, step=plain_step(module, seen), resolution=lambda step: 8 + 4 * (step % 3))
    assert seen == [(index, 8 + 4 * (index % 3)) for index in range(10)]


def test_the_same_seed_trains_the_same_and_another_does_not(digits):
    modules = [network(), network(), network()]
    for module, seed in zip(modules, (1, 1, 2), strict=True):
        torch.manual_seed(100 + len(str(module)) + seed)
        train(module, digits, LoopSettings(1.0, 0.1, 25, seed=seed))
    assert same(modules[0], modules[1])
    assert not same(modules[0], modules[2])


def test_progress_counts_to_the_end(digits):
    told: list[tuple[int, int, float]] = []
    train(network(), digits, progress=lambda *now: told.append(now))
    assert [(done, total) for done, total, _ in told] == [(step, 10) for step in range(1, 11)]
    assert all(math.isfinite(loss) for *_, loss in told)


def test_a_loop_trains(digits):
    told: list[float] = []
    train(
        network(),
        digits,
        LoopSettings(20.0, 0.2, 25),
        progress=lambda done, total, loss: told.append(loss),
    )
    assert told[-1] < 0.85 * told[0]


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
