"""Training a super-network: progressive shrinking, and adaptation during a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nat2deploy.data.sets import ImageData
from nat2deploy.space.architecture import Architecture
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, save_supernet, supernet_info
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.loop import LoopSettings, Progress, Step, run_loop
from nat2deploy.training.losses import distillation_loss
from nat2deploy.training.schedule import Phase

Sampler = Callable[[int], Sequence[Architecture]]
"""Given a step's number, the sub-networks that share its images; all have one resolution."""


def sub_network_step(
    supernet: SuperNetwork, sampler: Sampler, teacher: nn.Module | None, ratio: float
) -> Step:
    """Return a training step over the sampled sub-networks; their gradients are averaged.

    With a ``teacher`` (frozen, evaluation mode) the loss is ``ratio`` × distillation + labels.
    """

    def step(images: Tensor, targets: Tensor, index: int) -> Tensor:
        guide = None
        if teacher is not None:
            with torch.no_grad():
                guide = teacher(images)
        chosen = sampler(index)
        total = torch.zeros(())
        for architecture in chosen:
            logits = supernet(images, architecture)
            loss = distillation_loss(logits, targets, guide, ratio) / len(chosen)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    return step


def full_teacher(supernet: SuperNetwork) -> nn.Module:
    """A frozen copy of the largest sub-network, in evaluation mode."""
    teacher = supernet.extract(supernet.space.largest()).eval()
    return teacher.requires_grad_(False)


def train_supernet(
    supernet: SuperNetwork,
    phases: Sequence[Phase],
    data: ImageData,
    info: SuperNetworkInfo,
    out: Path,
    *,
    batch_size: int,
    seed: int,
    distillation_ratio: float = 1.0,
    progress: Callable[[Phase, int, int, float], None] | None = None,
) -> tuple[SuperNetwork, SuperNetworkInfo]:
    """Train by progressive shrinking (Cai et al., 2020, section 3.3) and write ``out`` after each phase.

    A file already at ``out`` with the first phases done is gone on with; so is a phase that was
    killed. The teacher is the largest sub-network as the first phase left it.

    Returns the trained super-network in evaluation mode and its description.

    Raises:
        UserError: training diverged, or a file cannot be read or written.
    """
    names = tuple(phase.name for phase in phases)
    before = info.phases
    done = 0
    if out.exists():
        held = supernet_info(out)
        finished = held.phases[len(before) :]
        same = held.model_copy(update={"phases": before}) == info
        if same and finished == names[: len(finished)]:
            supernet, info = load_supernet(out)
            done = len(finished)
    teacher_file = out.with_name(out.name + ".teacher")
    if done == 0:
        teacher_file.unlink(missing_ok=True)  # of another training; this one's is made again if need be
    recipe = info.model_dump_json(exclude={"phases"})
    for number, phase in enumerate(phases):
        if number < done:
            continue
        if phase.sort_channels and number:
            supernet.sort_channels()
        teacher = _teacher(supernet, teacher_file, info) if phase.distil else None
        run_loop(
            supernet,
            sub_network_step(
                supernet, _phase_sampler(supernet, phase, seed, number), teacher, distillation_ratio
            ),
            LoopSettings(
                epochs=phase.epochs,
                learning_rate=phase.learning_rate,
                warmup_epochs=phase.warmup_epochs,
                batch_size=batch_size,
                seed=seed + number,
            ),
            data,
            resolution=lambda step, number=number: _resolution(supernet, seed, number, step),  # type: ignore[misc]
            checkpoint=out.with_name(f".{out.name}.training"),
            tag=f"{phase.name} {recipe}",
            progress=None if progress is None else _named(progress, phase),
        )
        supernet.eval()
        info = info.model_copy(update={"phases": (*info.phases, phase.name)})
        save_supernet(out, supernet, info)
    teacher_file.unlink(missing_ok=True)
    return supernet.eval(), info


def adapt(
    supernet: SuperNetwork,
    sampler: Sampler,
    data: ImageData,
    settings: LoopSettings,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    tag: str = "",
    progress: Progress | None = None,
) -> None:
    """Train a super-network in place on sub-networks that a search samples (NAT; Lu et al., 2021)."""
    run_loop(
        supernet,
        sub_network_step(supernet, sampler, teacher, 1.0),
        settings,
        data,
        resolution=lambda step: sampler(step)[0].resolution,
        checkpoint=checkpoint,
        tag=tag,
        progress=progress,
    )
    supernet.eval()


def _phase_sampler(supernet: SuperNetwork, phase: Phase, seed: int, number: int) -> Sampler:
    def sample(step: int) -> list[Architecture]:
        rng = np.random.default_rng([seed, number, step, 1])
        resolution = _resolution(supernet, seed, number, step)
        return [
            phase.choices.sample(supernet.space, supernet.width, resolution, rng)
            for _ in range(phase.subnets_per_step)
        ]

    return sample


def _resolution(supernet: SuperNetwork, seed: int, number: int, step: int) -> int:
    """Drawn anew each batch, from numbers that a resumed run has again."""
    rng = np.random.default_rng([seed, number, step, 0])
    return int(rng.choice(supernet.space.resolutions))


def _teacher(supernet: SuperNetwork, path: Path, info: SuperNetworkInfo) -> nn.Module:
    """The teacher of all distilled phases, kept on disk so that a resumed run has the same one."""
    if path.exists():
        return full_teacher(load_supernet(path)[0])
    save_supernet(path, supernet, info)
    return full_teacher(supernet)


def _named(progress: Callable[[Phase, int, int, float], None], phase: Phase) -> Progress:
    return lambda done, total, loss: progress(phase, done, total, loss)
