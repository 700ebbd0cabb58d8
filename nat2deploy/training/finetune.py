"""Training one plain network: fine-tuning a sub-network, or any module from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.training.evaluation import Accuracy, judge
from nat2deploy.training.loop import LoopSettings, Progress, run_loop
from nat2deploy.training.losses import exits_loss


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning did: validation accuracy before and after, and the test accuracy at the end."""

    before: Accuracy
    after: Accuracy
    test: Accuracy
    steps: int
    kept: bool
    """False when the tuned weights validated worse and the given ones were kept."""


def train_network(
    network: nn.Module,
    data: ImageData,
    settings: LoopSettings,
    resolution: int,
    *,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    tag: str = "",
    time_limit_s: float = math.inf,
    progress: Progress | None = None,
) -> int:
    """Train a plain network in place at a resolution in pixels; returns the number of steps done.

    With a ``teacher`` (any frozen module on the same images) its softmax is followed too. Several exits
    are trained jointly, their losses weighted as the network weights their logits.
    """

    def step(images: Tensor, targets: Tensor, _: int) -> Tensor:
        guide = None
        if teacher is not None:
            with torch.no_grad():
                guide = teacher(images)
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
        tag=tag,
        progress=progress,
        time_limit_s=time_limit_s,
    )


def finetune(
    network: nn.Module,
    data: ImageData,
    settings: LoopSettings,
    resolution: int,
    *,
    recalibrate: Callable[[nn.Module, int], None],
    judged: Callable[[nn.Module, Split], Accuracy] | None = None,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    tag: str = "",
    progress: Progress | None = None,
) -> FineTuned:
    """Fine-tune ``network`` in place and judge it; the test split is looked at once, at the end.

    ``recalibrate(network, resolution)`` recomputes BN statistics after training. Weights that validate
    worse than before are dropped. ``judged(network, split)`` gives the accuracies where they are others than
    those of the network as it is.
    """

    def judge_on(split: Split) -> Accuracy:
        return judge(network, data, split, resolution) if judged is None else judged(network, split)

    before = judge_on(data.validation)
    start = {key: value.clone() for key, value in network.state_dict().items()}
    steps = train_network(
        network,
        data,
        settings,
        resolution,
        teacher=teacher,
        checkpoint=checkpoint,
        tag=tag,
        progress=progress,
    )
    recalibrate(network, resolution)
    after = judge_on(data.validation)
    kept = (after.top1, -after.loss) >= (before.top1, -before.loss)
    if not kept:
        network.load_state_dict(start)
    network.eval()
    test = judge_on(data.test)
    return FineTuned(before, after if kept else before, test, steps, kept)
