"""NAT2's post-processing in two phases, of a network with one exit or with several (AEP).

The facts are those of the first author's released code. It is not followed where it is wrong: its second
phase keeps the cosine of the first one's length, here each phase has its own; and without a validation split
its early stopping looks at the test split, here training is refused. Ours in all settings: batch-norm
statistics are recomputed before a network is judged, SGD's momentum is Nesterov's, and biases and batch norm
are not decayed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.training.aep import JointTraining, JointWeights, train_jointly
from nat2deploy.training.epochs import Epoch, EpochRecord, PatientRecord
from nat2deploy.training.evaluation import NO_ANSWER_LOSS
from nat2deploy.training.exits import EachExit, Exits, JudgedExits, exit_logits, judge_exits, keep_exits
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.losses import LABEL_SMOOTHING


@dataclass(frozen=True)
class Recipe:
    """How a network is tuned.

    Of two phases ``settings.epochs`` are the most that the first one may take; it ends when the validation
    accuracy has not risen for ``patience`` epochs.
    """

    settings: LoopSettings
    weights: JointWeights
    phases: Literal[1, 2] = 2
    patience: int = 30
    smoothing: float = LABEL_SMOOTHING
    validate_each_epoch: bool = True
    """Of one phase, whose result does not depend on it; False: only at the end."""


@dataclass(frozen=True)
class Tuned:
    """A tuned network, cut to the exits that were kept.

    ``judged`` is on the validation split: of two phases at the first one's best epoch, before the second one
    trained on that split too. ``epochs`` are those behind the weights; ``history`` is what each epoch of all
    phases did.
    """

    network: SubNetwork
    judged: JudgedExits
    exits: Exits
    epochs: float
    history: tuple[Epoch, ...] = ()

    @property
    def curve(self) -> tuple[float, ...]:
        """The validation accuracy after each epoch of the first phase where it was judged."""
        return tuple(epoch.top1 for epoch in self.history if epoch.phase == 1 and epoch.top1 is not None)


Forms = Callable[[nn.Module], Sequence[nn.Module]]
"""Gives the forms in which a module is judged, such as in fewer bits; of several the worst counts."""


def as_it_is(module: nn.Module) -> Sequence[nn.Module]:
    """The only form of a module that is judged as it is."""
    return [module]


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
    forms: Forms = as_it_is,
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
        forms: in which the exits are judged on the validation split. In fewer bits the sum of their logits is
            simulated as exact.
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

    def begin() -> JointTraining:
        return JointTraining(copy.deepcopy(network), recipe.weights)

    def judge(joint: JointTraining) -> JudgedExits:
        """Judge a copy of the network, whose BN statistics are its own."""
        joint = copy.deepcopy(joint)
        recalibrate(joint.network, resolution)
        return _judge(joint, data, resolution, forms)

    def train(
        joint: JointTraining, settings: LoopSettings, checkpoint: Path, split: Split, record: EpochRecord
    ) -> None:
        phase = record.phase
        train_jointly(
            joint,
            data,
            settings,
            resolution,
            split=split,
            teacher=teacher,
            smoothing=recipe.smoothing,
            checkpoint=checkpoint,
            # Of a first phase of two, what it found is all that is asked for again.
            keep=phase == recipe.phases,
            tag=f"{tag} phase {phase}",
            progress=None if progress is None else lambda *where: progress(phase, *where),
            watch=record,
        )

    joint = begin()
    if recipe.phases == 1:
        record = EpochRecord(1, partial(judge, joint) if recipe.validate_each_epoch else None)
        train(joint, recipe.settings, first, data.train, record)
        epochs, history = recipe.settings.epochs, record.epochs
        judged = record.judged[-1] if record.judged else judge(joint)
        history[-1] = history[-1].with_validation(judged)
    else:
        most = math.ceil(recipe.settings.epochs)
        patient = PatientRecord(
            partial(judge, joint), patience=recipe.patience, most=most, found=found, tag=tag
        )
        if not patient.stop:
            train(joint, replace(recipe.settings, epochs=float(most)), first, data.train, patient)
        judged, epochs = patient.judged[patient.best - 1], float(patient.best)
        settings = replace(
            recipe.settings, epochs=epochs, warmup_epochs=min(recipe.settings.warmup_epochs, epochs / 10)
        )
        joint, record = begin(), EpochRecord(2)
        train(joint, settings, second, together(data), record)
        history = [*patient.epochs, *record.epochs]
    recalibrate(joint.network, resolution)
    exits = choose(judged)
    weights = joint.network.exit_weights.tolist()
    tuned = keep_exits(joint.network.cpu(), space, architecture, exits, weights)
    return Tuned(tuned.eval(), judged, exits, epochs, tuple(history))


def checkpoints(folder: Path) -> tuple[Path, Path, Path]:
    """The files of an unfinished tuning: the two phases' checkpoints, and what the first one found."""
    return folder / ".phase1", folder / ".phase2", folder / ".phase1.json"


def together(data: ImageData) -> Split:
    """The training and the validation split as one."""
    splits = (data.train, data.validation)
    return Split(torch.cat([s.images for s in splits]), torch.cat([s.targets for s in splits]))


def _judge(joint: JointTraining, data: ImageData, resolution: int, forms: Forms) -> JudgedExits:
    """Judge every state of calibrated exits on the validation split."""
    exits = tuple(int(stage) for stage in joint.network.exits)
    weights, targets = joint.output_weights().tolist(), data.validation.targets
    whole = EachExit(joint.network)

    def judge(form: nn.Module) -> JudgedExits:
        logits = exit_logits(form, data, data.validation, resolution)
        judged = judge_exits(logits, exits, weights, targets)
        # As in a search: what is too large for the precision gives no answer on the device; a network
        # without a finite loss of its own is broken.
        if judged.is_finite or form is whole or not judge(whole).is_finite:
            return judged
        return judge_exits(logits, exits, weights, targets, NO_ANSWER_LOSS)

    return reduce(JudgedExits.worst, map(judge, forms(whole)))
