"""NAT2's post-processing in two phases, of a network with one exit or with several (AEP).

The facts are those of the first author's released code. It is not followed where it is wrong: its second
phase keeps the cosine of the first one's length, here each phase has its own; and without a validation split
its early stopping looks at the test split, here training is refused. Ours in all settings: batch-norm
statistics are recomputed before a network is judged, SGD's momentum is Nesterov's, and biases and batch norm
are not decayed.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.errors import UserError
from nat2deploy.files import read_json, write_json
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.training.aep import ExitWeights, JointTraining, train_jointly
from nat2deploy.training.exits import Exits, JudgedExits, exit_logits, judge_exits, keep_exits
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.losses import LABEL_SMOOTHING


@dataclass(frozen=True)
class Recipe:
    """How a network is tuned.

    Of two phases ``settings.epochs`` are the most that the first one may take; it ends when the validation
    accuracy has not risen for ``patience`` epochs.
    """

    settings: LoopSettings
    weights: ExitWeights
    phases: Literal[1, 2] = 2
    patience: int = 30
    smoothing: float = LABEL_SMOOTHING


@dataclass(frozen=True)
class Tuned:
    """A tuned network, cut to the exits that were kept.

    ``judged`` is on the validation split: of two phases at the first one's best epoch, before the second one
    trained on that split too. ``epochs`` are those behind the weights; ``curve`` is the validation accuracy
    after each epoch of the first phase of two.
    """

    network: SubNetwork
    judged: JudgedExits
    exits: Exits
    epochs: float
    curve: tuple[float, ...] = ()


PhaseProgress = Callable[[int, int, int, float], None]
"""Called with (phase, steps done, steps in all, running loss)."""


def tune_exits(
    network: SubNetwork,
    space: SearchSpace,
    architecture: Architecture,
    data: ImageData,
    recipe: Recipe,
    *,
    choose: Callable[[JudgedExits], Exits],
    recalibrate: Callable[[nn.Module, int], None],
    folder: Path,
    teacher: nn.Module | None = None,
    tag: str = "",
    progress: PhaseProgress | None = None,
) -> Tuned:
    """Tune all of a network's exits together, then keep those that ``choose`` wants.

    Two phases: train on the training split for the best number of epochs; then, from the same start, on the
    training and the validation split together for as many. The test split is not looked at.

    Args:
        network: of the architecture; its weights are left as they are.
        space: of the architecture.
        architecture: what the network is, its exits included.
        data: all three splits.
        recipe: how long and how fast.
        choose: is given every on/off state's validation accuracy and returns the exits to keep.
        recalibrate: ``recalibrate(network, resolution)`` recomputes BN statistics.
        folder: where checkpoints are; a killed tuning of the same ``tag`` goes on from them. The caller
            removes those of ``checkpoints`` when it has stored the result.
        teacher: any frozen module on the same images, whose softmax each exit follows too.
        tag: names weights and settings.
        progress: told each step.

    Raises:
        UserError: training diverged, or there is nothing to validate on.
    """
    if not len(data.validation):
        raise UserError(f"{data.name} has no validation split, and test is not for choosing; hold some out")
    resolution = architecture.resolution
    first, second, found = checkpoints(folder)

    def train(
        phase: int, settings: LoopSettings, checkpoint: Path, split: Split, watch: _Validation | None
    ) -> JointTraining:
        joint = JointTraining(copy.deepcopy(network), recipe.weights)
        if watch is not None:
            watch.joint = joint
        train_jointly(
            joint,
            data,
            settings,
            resolution,
            split=split,
            teacher=teacher,
            smoothing=recipe.smoothing,
            checkpoint=checkpoint,
            tag=f"{tag} phase {phase}",
            progress=None if progress is None else lambda *where: progress(phase, *where),
            watch=watch,
        )
        recalibrate(joint.network, resolution)
        return joint

    curve: tuple[float, ...] = ()
    if recipe.phases == 1:
        joint = train(1, recipe.settings, first, data.train, None)
        judged, epochs = _judge(joint, data, resolution), recipe.settings.epochs
    else:
        most = math.ceil(recipe.settings.epochs)
        watch = _Validation(data, resolution, recalibrate, recipe.patience, most, found, tag)
        if not watch.stop:
            train(1, replace(recipe.settings, epochs=float(most)), first, data.train, watch)
        judged, epochs = watch.rows[watch.best - 1], float(watch.best)
        curve = tuple(row.whole.top1 for row in watch.rows)
        settings = replace(
            recipe.settings, epochs=epochs, warmup_epochs=min(recipe.settings.warmup_epochs, epochs / 10)
        )
        joint = train(2, settings, second, together(data), None)
    exits = choose(judged)
    weights = joint.network.exit_weights.tolist()
    tuned = keep_exits(joint.network.cpu(), space, architecture, exits, weights)
    return Tuned(tuned.eval(), judged, exits, epochs, curve)


def checkpoints(folder: Path) -> tuple[Path, Path, Path]:
    """The files of an unfinished tuning: the two phases' checkpoints, and what the first one found."""
    return folder / ".phase1", folder / ".phase2", folder / ".phase1.json"


def together(data: ImageData) -> Split:
    """The training and the validation split as one."""
    splits = (data.train, data.validation)
    return Split(torch.cat([s.images for s in splits]), torch.cat([s.targets for s in splits]))


def _judge(joint: JointTraining, data: ImageData, resolution: int) -> JudgedExits:
    """Judge every state of calibrated exits on the validation split."""
    network = joint.network
    logits = exit_logits(network, data, data.validation, resolution)
    exits = tuple(int(stage) for stage in network.exits)
    return judge_exits(logits, exits, joint.output_weights().tolist(), data.validation.targets)


class _Validation:
    """Judges a network after each epoch, and ends its training when it has not got better for a while.

    Its rows are written to a file when training ends, so that a second phase need not wait for them again.
    """

    joint: JointTraining

    def __init__(
        self,
        data: ImageData,
        resolution: int,
        recalibrate: Callable[[nn.Module, int], None],
        patience: int,
        most: int,
        found: Path,
        tag: str,
    ) -> None:
        self.data = data
        self.resolution = resolution
        self.recalibrate = recalibrate
        self.patience = patience
        self.most = most
        self.found = found
        self.tag = tag
        self.rows: list[JudgedExits] = []
        if found.exists():
            value = read_json(found, "first phase")
            if value["tag"] == tag:
                self.restore(json.dumps(value["rows"]))

    @property
    def best(self) -> int:
        """The epoch, from 1, with the highest accuracy of all exits together; then the lowest loss."""
        keys = [(row.whole.top1, -row.whole.loss) for row in self.rows]
        return 1 + keys.index(max(keys))

    @property
    def stop(self) -> bool:
        """Whether the best epoch is known."""
        done = len(self.rows)
        return done >= self.most or (done > 0 and done - self.best >= self.patience)

    def epoch_done(self, epochs: int) -> None:
        """Judge a copy of the network, whose BN statistics are its own."""
        joint = copy.deepcopy(self.joint)
        self.recalibrate(joint.network, self.resolution)
        self.rows.append(_judge(joint, self.data, self.resolution))
        if self.stop:
            write_json(self.found, {"tag": self.tag, "rows": json.loads(self.state())})

    def state(self) -> str:
        """All epochs' accuracies."""
        return json.dumps([row.to_json() for row in self.rows])

    def restore(self, state: str) -> None:
        """Go on behind these epochs."""
        self.rows = [JudgedExits.from_json(value) for value in json.loads(state)]
