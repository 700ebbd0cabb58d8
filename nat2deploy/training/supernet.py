"""Training a super-network: progressive shrinking, and adaptation during a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, save_supernet, supernet_info
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.distributed import ALONE, World
from nat2deploy.training.loop import LoopSettings, Progress, Step, run_loop
from nat2deploy.training.losses import LABEL_SMOOTHING, ExitWeights, exit_weights, exits_loss, guidance
from nat2deploy.training.schedule import Phase
from nat2deploy.training.shared_step import Found, SubNetworkWorld, taken_gradients
from nat2deploy.training.teacher import CalibratedTeacher

Sampler = Callable[[int], Sequence[Architecture]]
"""Given a step's number, the sub-networks that share its images; all have one resolution."""


Watch = Callable[[AnySuperNetwork, Phase, int, int], None]
"""Called with (super-network, phase, steps of it done, steps of it in all)."""


@dataclass(frozen=True)
class ShrinkingSettings:
    """How a super-network is trained, beside its phases.

    ``teacher``: the full network as the ``first`` phase left it (Once-For-All), or ``extracted`` anew from
    what each phase began with, BN recalibrated (OFAv2). ``sandwich`` adds the largest and the smallest
    sub-network to each step. ``ema`` is the decay of an average of the weights that each phase ends with.
    """

    batch_size: int
    seed: int = 0
    distillation_ratio: float = 1.0
    label_smoothing: float = LABEL_SMOOTHING
    teacher: Literal["first", "extracted"] = "first"
    sandwich: bool = False
    ema: float | None = None
    clip: float | None = None
    device: str = "cpu"
    mixed_precision: bool = False
    weight_decay: float = 3e-5
    exit_weights: ExitWeights = "ascending"


def sub_network_step(
    supernet: AnySuperNetwork,
    sampler: Sampler,
    teacher: nn.Module | None,
    ratio: float,
    smoothing: float = LABEL_SMOOTHING,
    order: ExitWeights = "ascending",
    world: World = ALONE,
    *,
    summed: bool = False,
) -> Step:
    """Return a training step over the sampled sub-networks; their gradients are averaged, or ``summed``.

    In a ``SubNetworkWorld`` each process computes those of some, and all get the sum.

    With a ``teacher`` (frozen, evaluation mode) the loss is ``ratio`` × distillation + labels. The losses
    of several exits are summed with weights in that ``order``.
    """
    stages = len(supernet.space.stages)

    def step(images: Tensor, targets: Tensor, index: int) -> Tensor:
        guide = guidance(teacher, images)
        chosen = sampler(index)
        total = torch.zeros((), device=images.device)
        shared = world if isinstance(world, SubNetworkWorld) else None
        found: dict[int, Found] = {}
        for place in range(len(chosen)) if shared is None else shared.own(len(chosen)):
            architecture = chosen[place]
            weights = exit_weights(architecture.exits, stages, order)
            logits = supernet.exit_logits(images, architecture)
            loss = exits_loss(logits, weights, targets, guide, ratio, smoothing)
            loss = loss if summed else loss / len(chosen)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            if shared is not None:
                found[place] = (loss.detach(), taken_gradients(supernet))
        return total if shared is None else shared.add_in_order(supernet, found, len(chosen))

    return step


def train_supernet(
    supernet: AnySuperNetwork,
    phases: Sequence[Phase],
    data: ImageData,
    info: SuperNetworkInfo,
    out: Path,
    settings: ShrinkingSettings,
    *,
    progress: Callable[[Phase, int, int, float], None] | None = None,
    watch: Watch | None = None,
    world: World = ALONE,
) -> tuple[AnySuperNetwork, SuperNetworkInfo]:
    """Train by progressive shrinking (Cai et al., 2020, section 3.3) and write ``out`` after each phase.

    A file already at ``out`` with the first phases done is gone on with; so is a phase that was killed.
    ``watch`` is shown the super-network after each step, to be judged but not changed.
    The processes of a ``world`` call this together; the first one alone writes and tells its ``progress``.

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
    checkpoint, teacher_file = unfinished(out)
    world.expect_same(done, "phases done")
    if done == 0 and world.is_first:
        teacher_file.unlink(missing_ok=True)  # of another training; this one's is made again if need be
    world.barrier()
    recipe = info.model_dump_json(exclude={"phases"})
    seed = settings.seed
    supernet.to(settings.device)
    first_teacher: nn.Module | None = None  # one for all phases, with its statistics
    taught = sum(phase.epochs for phase in phases if phase.distil)
    for number, phase in enumerate(phases):
        if number < done:
            continue
        teacher: nn.Module | None = None
        if phase.distil and settings.teacher == "extracted":
            teacher = CalibratedTeacher(supernet, data, seed, settings.exit_weights, epochs=phase.epochs)
        elif phase.distil:
            if first_teacher is None:
                begun = done and any(phase.distil for phase in phases[:done])
                if begun and not teacher_file.exists():
                    raise UserError(
                        f"{teacher_file} is missing, the teacher of {out}'s training; put it back beside "
                        "that file, or train anew with another --out"
                    )
                first = _first_full(supernet, teacher_file, info, world).to(settings.device)
                first_teacher = CalibratedTeacher(first, data, seed, settings.exit_weights, epochs=taught)
            teacher = first_teacher
        if phase.sort_channels and number:
            supernet.sort_channels()
        sampler = _phase_sampler(supernet, phase, settings, number)
        run_loop(
            supernet,
            sub_network_step(
                supernet,
                sampler,
                teacher,
                settings.distillation_ratio,
                settings.label_smoothing,
                settings.exit_weights,
                summed=phase.summed,
            ),
            LoopSettings(
                epochs=phase.epochs,
                learning_rate=phase.learning_rate,
                warmup_epochs=phase.warmup_epochs,
                batch_size=settings.batch_size,
                weight_decay=settings.weight_decay,
                clip=settings.clip,
                seed=seed + number,
                ema=settings.ema,
                device=settings.device,
                mixed_precision=settings.mixed_precision,
            ),
            data,
            resolution=lambda step, number=number: _resolution(supernet, seed, number, step),  # type: ignore[misc]
            checkpoint=checkpoint,
            keep=True,  # until what the phase made is stored
            tag=f"{phase.name} {recipe}",
            progress=_progress(supernet, phase, progress, watch),
            world=world,
        )
        supernet.eval()
        info = info.model_copy(update={"phases": (*info.phases, phase.name)})
        if world.is_first:
            save_supernet(out, supernet, info)
            checkpoint.unlink(missing_ok=True)
        world.barrier()  # the next phase looks for a checkpoint
    if world.is_first:
        clear(out)
    world.barrier()
    return supernet.cpu().eval(), info


def unfinished(out: Path) -> tuple[Path, Path]:
    """The files beside ``out`` of a training that is not done: a phase's checkpoint, and the teacher."""
    return out.with_name(f".{out.name}.training"), out.with_name(out.name + ".teacher")


def clear(out: Path) -> None:
    """Remove what a training that is done may have left, killed after it had written its last phase."""
    for path in unfinished(out):
        path.unlink(missing_ok=True)


def adapt(
    supernet: AnySuperNetwork,
    sampler: Sampler,
    data: ImageData,
    settings: LoopSettings,
    *,
    teacher: nn.Module | None = None,
    smoothing: float = LABEL_SMOOTHING,
    order: ExitWeights = "ascending",
    checkpoint: Path | None = None,
    tag: str = "",
    progress: Progress | None = None,
    world: World = ALONE,
) -> None:
    """Train a super-network in place on sub-networks that a search samples (NAT; Lu et al., 2021).

    Of several widths, each sub-network trains the super-network of its own. The processes of a ``world``
    call this together; the first one alone writes and tells its ``progress``. Whoever calls removes the
    ``checkpoint`` once the result is stored: killed before that, the next call trains no step.
    """
    run_loop(
        supernet,
        sub_network_step(supernet, sampler, teacher, 1.0, smoothing, order, world),
        settings,
        data,
        resolution=lambda step: sampler(step)[0].resolution,
        checkpoint=checkpoint,
        keep=True,
        tag=tag,
        progress=progress,
        world=world,
    )
    supernet.eval()


def one_of(widths: Sequence[float], rng: np.random.Generator) -> float:
    """Draw one of the widths; of a single one nothing is drawn."""
    return widths[0] if len(widths) == 1 else float(rng.choice(widths))


def _phase_sampler(
    supernet: AnySuperNetwork, phase: Phase, settings: ShrinkingSettings, number: int
) -> Sampler:
    space = supernet.space
    widths = phase.widths or space.widths

    def sample(step: int) -> list[Architecture]:
        rng = np.random.default_rng([settings.seed, number, step, 1])
        resolution = _resolution(supernet, settings.seed, number, step)
        drawn = [
            phase.choices.sample(space, one_of(widths, rng), resolution, rng)
            for _ in range(phase.subnets_per_step)
        ]
        if settings.sandwich and phase.distil:
            ends = (phase.choices.extreme(space, w, resolution, end) for w in widths for end in (-1, 0))
            drawn = list(dict.fromkeys([*ends, *drawn]))
        return drawn

    return sample


def _resolution(supernet: AnySuperNetwork, seed: int, number: int, step: int) -> int:
    """Drawn anew each batch, from numbers that a resumed run has again."""
    rng = np.random.default_rng([seed, number, step, 0])
    return int(rng.choice(supernet.space.resolutions))


def _first_full(
    supernet: AnySuperNetwork, path: Path, info: SuperNetworkInfo, world: World
) -> AnySuperNetwork:
    """The super-network whose full network teaches all phases, kept on disk for a resumed run.

    Whether another process finds the file or has its own weights makes no difference: they are the same.
    """
    if path.exists():
        return load_supernet(path)[0]
    if world.is_first:
        save_supernet(path, supernet, info)
    return supernet


def _progress(
    supernet: AnySuperNetwork,
    phase: Phase,
    progress: Callable[[Phase, int, int, float], None] | None,
    watch: Watch | None,
) -> Progress:
    def tell(done: int, total: int, loss: float) -> None:
        if progress is not None:
            progress(phase, done, total, loss)
        if watch is not None:
            watch(supernet, phase, done, total)

    return tell
