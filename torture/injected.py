"""Faults, put into a process from outside by replacing functions: the package knows nothing of them.

In every process training saves its checkpoint several times a second, so that there is one to go on from.
"""

from __future__ import annotations

import datetime
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from nat2deploy.training import loop, supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator

SAVE_EVERY_S = 0.2
STAGES = ("full", "kernel", "depth", "expansion", "round 0", "round 1")
"""Of training: how a loop's tag begins."""


def _memory(after: int, kind: int) -> None:
    """Judging one architecture runs out of memory: Python's (0), or PyTorch's (1)."""
    judge, count = SubNetworkEvaluator.__call__, 0

    def short(self: SubNetworkEvaluator, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == after:
            if kind == 0:
                bytearray(1 << 60)
            torch.empty(1 << 60, dtype=torch.uint8)
        return judge(self, *arguments)

    SubNetworkEvaluator.__call__ = short  # type: ignore[method-assign]


def _training_step(
    spoil: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor], stage: int, at: int
) -> None:
    """Let ``spoil`` change the loss or the gradients of step ``at`` of one stage of training."""
    run_loop = supernet.run_loop

    def spoiled_loop(module: torch.nn.Module, step: loop.Step, *arguments: Any, **options: Any) -> int:
        def spoiled(images: torch.Tensor, targets: torch.Tensor, index: int) -> torch.Tensor:
            loss = step(images, targets, index)
            return spoil(module, loss) if index == at else loss

        struck = options["tag"].startswith(STAGES[stage])
        return run_loop(module, spoiled if struck else step, *arguments, **options)

    supernet.run_loop = spoiled_loop  # type: ignore[assignment]


def _nan_loss(stage: int, at: int) -> None:
    _training_step(lambda _, loss: loss * torch.nan, stage, at)


def _nan_gradient(stage: int, at: int) -> None:
    def spoil(module: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(torch.nan)
        return loss

    _training_step(spoil, stage, at)


def _clock(seed: int) -> None:
    """The time of day jumps by up to a day, either way, each time that someone looks."""
    rng, real, real_ns = random.Random(seed), time.time, time.time_ns

    def jump_s() -> float:
        return rng.uniform(-86_400, 86_400)

    time.time = lambda: real() + jump_s()
    time.time_ns = lambda: real_ns() + int(jump_s() * 1e9)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.fromtimestamp(time.time(), tz)

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("nat2deploy") and hasattr(module, "datetime"):
            module.datetime = Jumping  # type: ignore[attr-defined]


FAULTS: dict[str, Callable[..., None]] = {
    "none": lambda: None,
    "memory": _memory,
    "nan-loss": _nan_loss,
    "nan-gradient": _nan_gradient,
    "clock": _clock,
}


def inject(fault: str) -> None:
    """Put ``NAME`` or ``NAME:NUMBER:NUMBER`` into this process."""
    name, *numbers = fault.split(":")
    FAULTS[name](*map(int, numbers))
    assert loop.run_loop.__kwdefaults__ is not None
    loop.run_loop.__kwdefaults__["save_every_s"] = SAVE_EVERY_S
