"""A small network and what trains it, for tests of the training loop."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nat2deploy.training.loop import LoopSettings, run_loop

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
