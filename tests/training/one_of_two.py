"""A program that is one of two processes: half of a batch through each part, or a training that is killed.

``one_of_two.py parts FOLDER`` reads ``given.pt`` and writes what this process got to ``RANK.pt``;
``one_of_two.py killed STAGE STEP ARGUMENTS`` runs the command line, saving at every step, and SIGKILLs the
first process there; no phase may see the checkpoint of the one before it. The test module beside it starts
both and judges.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from nat2deploy.batch_norm import BatchNorm, normalise
from nat2deploy.data.load import load_data
from nat2deploy.errors import UserError
from nat2deploy.training import loop, supernet
from nat2deploy.training.distributed import World, world
from nat2deploy.training.loop import LoopSettings, run_loop

SETTINGS = LoopSettings(epochs=1.0, learning_rate=0.05, batch_size=20, clip=0.5, ema=0.9, seed=2)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, bias=False), BatchNorm(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)
    )


def train(ranks: World, settings: LoopSettings = SETTINGS, **more) -> tuple[int, dict[str, torch.Tensor]]:
    """A short training on digits; returns the steps done and the state."""
    module = network()

    def step(images, targets, index):
        loss = F.cross_entropy(module(images), targets)
        loss.backward()
        return loss

    data = load_data("digits", seed=0, base_resolution=8, max_train=100)
    done = run_loop(module, step, settings, data, resolution=lambda _: 8, world=ranks, **more)
    return done, module.state_dict()


def backward(
    y: torch.Tensor, probe: torch.Tensor, x: torch.Tensor, norm: nn.BatchNorm2d
) -> list[torch.Tensor]:
    """Output, gradients of input, weight and bias, and the running statistics."""
    (y * probe).sum().backward()
    tensors = (y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
    return [tensor.detach().clone() for tensor in tensors]


def module_norm(norm: nn.BatchNorm2d, x: torch.Tensor, probe: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    return backward(norm(x), probe, x, norm)


def sliced_norm(norm: nn.BatchNorm2d, x: torch.Tensor, probe: torch.Tensor) -> list[torch.Tensor]:
    """The first three channels of a norm of more, as the elastic layers normalise."""
    x = x[:, :3].clone().requires_grad_()
    parts = (norm.running_mean[:3], norm.running_var[:3], norm.weight[:3], norm.bias[:3])
    return backward(normalise(x, *parts, True, 0.1, 1e-5), probe[:, :3], x, norm)


def filled(channels: int, momentum: float | None, kind: type[nn.BatchNorm2d] = BatchNorm) -> nn.BatchNorm2d:
    """A norm with a weight and bias of its own for each channel."""
    norm = kind(channels, momentum=momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, channels))
        norm.bias.copy_(torch.linspace(-1, 1, channels))
    return norm


def parts(folder: Path) -> None:
    given = torch.load(folder / "given.pt")
    with world() as ranks:
        own = slice(0, given["cut"]) if ranks.is_first else slice(given["cut"], None)
        x, probe = given["x"][own], given["probe"][own]
        found: dict[str, object] = {"rank": ranks.rank, "size": ranks.size}
        with ranks.whole_batch():
            found["module"] = module_norm(filled(5, 0.1), x, probe)
            found["mean of batches"] = module_norm(filled(5, None), x, probe)
            found["channels last"] = module_norm(
                filled(5, 0.1), x.to(memory_format=torch.channels_last), probe
            )
            found["sliced"] = sliced_norm(filled(5, 0.1), x, probe)
            found["half"] = filled(5, 0.1)(given["small"][own].bfloat16()).detach()
            found["evaluated"] = filled(5, 0.1).eval()(x).detach()
        found["apart"] = module_norm(filled(5, 0.1), x, probe)
        found["share"] = ranks.share(given["x"], torch.arange(len(given["x"])))
        found["average"] = ranks.average(1.0 + ranks.rank)
        found["first says"] = [ranks.first_says(ranks.is_first), ranks.first_says(not ranks.is_first)]
        module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(2, 2))
        module[0].weight.grad = torch.full((3, 2, 2, 2), 1.0 + ranks.rank).to(
            memory_format=torch.channels_last
        )
        module[0].bias.grad = torch.arange(3.0) * (1 + ranks.rank)
        ranks.average_gradients(module)
        found["gradients"] = [parameter.grad for parameter in module.parameters()]
        ranks.expect_same(3, "things")
        for wrong in (lambda: ranks.expect_same(ranks.rank, "things"), lambda: ranks.share(x[:3], x[:3])):
            try:
                wrong()
            except UserError as error:
                found.setdefault("refused", []).append(str(error))  # type: ignore[attr-defined]
        found["trained"] = train(ranks)
        adamw = replace(SETTINGS, optimiser="adamw", epochs=3.0)
        found["out of time"] = train(ranks, adamw, time_limit_s=-1.0 if ranks.is_first else 1e9)[0]
        torch.save(found, folder / f"{ranks.rank}.pt")


def killed(stage: str, step: int, arguments: list[str]) -> None:
    from nat2deploy.run import train as front

    plain = front.train

    def train_and_die(*given, report, **more):
        def told(name, done, total, detail=""):
            if stage in name and done == step:
                os.kill(os.getpid(), signal.SIGKILL)

        return plain(*given, report=told, **more)

    restore, save = loop._restore, supernet.save_supernet

    def restored(checkpoint, *given):
        assert not checkpoint.exists(), "a phase began before the one before it was stored"
        return restore(checkpoint, *given)

    def saved_late(*given):
        time.sleep(0.2)
        save(*given)

    loop._restore, supernet.save_supernet = restored, saved_late
    front.train = train_and_die
    # The checkpoint is saved after a step was told of: the killed one's is the step before.
    supernet.run_loop = functools.partial(supernet.run_loop, save_every_s=-1.0)
    sys.argv = ["nat2deploy", *arguments]
    from nat2deploy.cli import main

    main()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "parts":
        parts(Path(sys.argv[2]))
    else:
        killed(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
