"""Each step of a training has its rate, decay, clip, resolution and seed."""

from __future__ import annotations

import math

import pytest
import torch
from small_loops import network, plain_step, same, train
from torch.nn import functional as F

from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.optimisers import EagerSGD

# 100 images in batches of 25: four steps an epoch.


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
