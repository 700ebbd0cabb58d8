"""Training one plain network: fine-tuning a sub-network, or any module from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.training.evaluation import Accuracy, judge
from nat2deploy.training.exits import Exits, JudgedExits
from nat2deploy.training.loop import LoopSettings, Progress, run_loop
from nat2deploy.training.losses import exits_loss, guidance
from nat2deploy.training.phases import Forms, PhaseProgress, Recipe, Tuned, as_it_is, tune_exits


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning did: validation accuracy before and after, and the test accuracy at the end."""

    network: SubNetwork
    """In evaluation mode: cut to the exits that were kept, or the given one."""
    before: Accuracy
    after: Accuracy
    test: Accuracy
    tuned: Tuned
    kept: bool
    """False when the tuned network validated worse and the given one was kept."""


def train_network(
    network: nn.Module,
    data: ImageData,
    settings: LoopSettings,
    resolution: int,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    keep: bool = False,
    tag: str = "",
    time_limit_s: float = math.inf,
    progress: Progress | None = None,
) -> int:
    """Train a plain network in place at a resolution in pixels; returns the number of steps done.

    With a ``teacher`` (any frozen module on the same images) its softmax is followed too. Several exits
    are trained jointly, their losses weighted as the network weights their logits. ``keep``: as ``run_loop``,
    like all others.
    """

    def step(images: Tensor, targets: Tensor, _: int) -> Tensor:
        guide = guidance(teacher, images)
        if isinstance(network, SubNetwork):
            logits, weights = network.exit_logits(images), network.exit_weights.tolist()
        else:
            logits, weights = [network(images)], [1.0]
        loss = exits_loss(logits, weights, targets, guide, 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return run_loop(
        network,
        step,
        settings,
        data,
        resolution=lambda _: resolution,
        checkpoint=checkpoint,
        keep=keep,
        tag=tag,
        progress=progress,
        time_limit_s=time_limit_s,
    )


def finetune(
    network: SubNetwork,
    data: ImageData,
    recipe: Recipe,
    *,
    start: SubNetwork,
    space: SearchSpace,
    architecture: Architecture,
    choose: Callable[[JudgedExits], Exits],
    recalibrate: Callable[[nn.Module, int], None],
    folder: Path,
    forms: Forms = as_it_is,
    teacher: nn.Module | None = None,
    tag: str = "",
    progress: PhaseProgress | None = None,
) -> FineTuned:
    """Fine-tune and judge a network; the test split is looked at once, at the end.

    Args:
        network: what there was before; returned if what was tuned validates worse.
        data: all three splits.
        recipe: how long and how fast.
        start: what is tuned: ``network``, or the same with earlier exits (AEP).
        space: of the architecture.
        architecture: of ``start``.
        choose: as ``tune_exits``, like all that follows.

    Raises:
        UserError: as ``tune_exits``.
    """

    def judge_on(network: SubNetwork, split: Split) -> Accuracy:
        resolution = architecture.resolution
        found = [judge(form, data, split, resolution, form_of=network) for form in forms(network)]
        return min(found, key=lambda one: one.top1)

    before = judge_on(network, data.validation)
    tuned = tune_exits(
        start,
        space,
        architecture,
        data,
        recipe,
        choose=choose,
        recalibrate=recalibrate,
        folder=folder,
        forms=forms,
        teacher=teacher,
        tag=tag,
        progress=progress,
    )
    after = tuned.judged.states[tuned.exits]
    kept = (after.top1, -after.loss) >= (before.top1, -before.loss)
    result = tuned.network if kept else network
    result.eval()
    return FineTuned(result, before, after if kept else before, judge_on(result, data.test), tuned, kept)
