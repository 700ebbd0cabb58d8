"""Anticipate, Ensemble and Prune (AEP; Sarti et al., 2022): a network's exits trained jointly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.training.loop import LoopSettings, Progress, Watch, run_loop
from nat2deploy.training.losses import LABEL_SMOOTHING, distillation_loss, exits_loss, guidance

ExitWeighting = Literal["unif", "asc", "desc", "mix", "learned"]
# Learned weights are the softmax of so many times a parameter: at the rates of fine-tuning they would hardly
# move else.
_LEARNING_GAIN = 10.0


@dataclass(frozen=True)
class JointWeights:
    """Weights of the exits' losses and of the ensemble's outputs, each adding up to 1."""

    losses: tuple[float, ...]
    outputs: tuple[float, ...]
    learned: bool = False
    """The outputs' weights are where training begins, not where it ends."""


def exit_weights_by(weighting: ExitWeighting, exits: int) -> JointWeights:
    """The weights of AEP for a number of exits, from the first.

    UNIF: 1/n. ASC: i / (1 + ... + n). DESC: the reverse. MIX: losses descend, outputs ascend. ``learned`` is
    ours: the losses' weights are UNIF, and the outputs', beginning there, are learned with the network.
    """
    ascending = tuple(2 * i / (exits * (exits + 1)) for i in range(1, exits + 1))
    descending = ascending[::-1]
    uniform = (1 / exits,) * exits
    losses, outputs = {
        "unif": (uniform, uniform),
        "asc": (ascending, ascending),
        "desc": (descending, descending),
        "mix": (descending, ascending),
        "learned": (uniform, uniform),
    }[weighting]
    return JointWeights(losses, outputs, learned=weighting == "learned" and exits > 1)


class JointTraining(nn.Module):
    """A network and the weights of its exits: what is trained.

    Learned output weights have to lower the cross-entropy of the ensemble, which is added to the loss: that
    of the exits alone would be lowest with all of the weight on the best of them.
    """

    def __init__(self, network: SubNetwork, weights: JointWeights) -> None:
        super().__init__()
        self.network = network
        self.weights = weights
        start = torch.tensor(weights.outputs).log() / _LEARNING_GAIN if weights.learned else None
        self.scores = None if start is None else nn.Parameter(start)

    def output_weights(self) -> Tensor:
        """The ensemble's weights [exits], adding up to 1."""
        if self.scores is None:
            return torch.tensor(self.weights.outputs)
        return torch.softmax(_LEARNING_GAIN * self.scores, dim=0)

    def loss(self, images: Tensor, targets: Tensor, guide: Tensor | None, smoothing: float) -> Tensor:
        """The weighted sum of the exits' losses, for images [B, 3, r, r] and targets [B].

        ``guide``: a teacher's logits [B, classes], whose softmax each exit follows too.
        """
        logits = self.network.exit_logits(images)
        loss = exits_loss(logits, self.weights.losses, targets, guide, 1.0, smoothing)
        if self.scores is None:
            return loss
        mixed = torch.einsum("e,ebc->bc", self.output_weights(), torch.stack(logits))
        return loss + distillation_loss(mixed, targets, guide, 1.0, smoothing)


def train_jointly(
    joint: JointTraining,
    data: ImageData,
    settings: LoopSettings,
    resolution: int,
    *,
    split: Split | None = None,
    teacher: nn.Module | None = None,
    smoothing: float = LABEL_SMOOTHING,
    checkpoint: Path | None = None,
    keep: bool = False,
    tag: str = "",
    progress: Progress | None = None,
    watch: Watch | None = None,
    time_limit_s: float = math.inf,
) -> int:
    """Train a network's exits in place at a resolution in pixels; returns the number of steps done.

    The network's ``exit_weights`` are the ensemble's afterwards. ``split`` is the training split when not
    given; ``teacher`` is any frozen module on the same images. ``keep``: as ``run_loop``, like all others.
    """

    def step(images: Tensor, targets: Tensor, _: int) -> Tensor:
        guide = guidance(teacher, images)
        loss = joint.loss(images, targets, guide, smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    steps = run_loop(
        joint,
        step,
        settings,
        data,
        resolution=lambda _: resolution,
        checkpoint=checkpoint,
        keep=keep,
        tag=tag,
        progress=progress,
        split=split,
        watch=watch,
        time_limit_s=time_limit_s,
    )
    with torch.no_grad():
        joint.network.exit_weights.copy_(joint.output_weights())
    return steps
