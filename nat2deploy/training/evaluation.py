"""Accuracy of networks, and of sub-networks with inherited weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nat2deploy.blocks import SubNetwork, weighted
from nat2deploy.data.batches import batches
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.intervals import wilson
from nat2deploy.space.architecture import Architecture
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.folding import Network, folded
from nat2deploy.training.recalibrate import recalibrate
from nat2deploy.training.simulated_precision import CALIBRATION_IMAGES, simulate

_CALIBRATION_BATCH = 32
_FOLD_FROM = 1000
"""Images from which on folding BN into the convolutions of a network that they judge pays."""
NO_ANSWER_LOSS = 100.0
"""The loss of an image that a simulated precision gives no finite one: more than any real network's."""


@dataclass(frozen=True)
class Accuracy:
    """Share of images whose first guess is right, mean cross-entropy, and the number of images."""

    top1: float
    loss: float
    images: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval of ``top1``."""
        return wilson(self.top1, self.images)


@dataclass(frozen=True)
class _Counted:
    """What was found of some images: how many are right, the sum of their losses, and how many they are."""

    right: int = 0
    loss: float = 0.0
    images: int = 0

    def __add__(self, other: _Counted) -> _Counted:
        return _Counted(self.right + other.right, self.loss + other.loss, self.images + other.images)

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy(self.right / self.images, self.loss / self.images, self.images)


def accuracy(network: nn.Module, labelled: Iterable[tuple[Tensor, Tensor]]) -> Accuracy:
    """Judge a network, in evaluation mode, on batches of (images [B, 3, r, r], targets [B])."""
    return _count(network, labelled).accuracy


def _count(
    network: nn.Module, labelled: Iterable[tuple[Tensor, Tensor]], no_answer: float = math.nan
) -> _Counted:
    """Judge likewise; an image whose loss is not finite counts as one of ``no_answer``."""
    return _count_each(network, lambda images: [network(images)], labelled, no_answer)[0]


def _count_each(
    network: nn.Module,
    answers: Callable[[Tensor], Sequence[Tensor]],
    labelled: Iterable[tuple[Tensor, Tensor]],
    no_answer: float = math.nan,
) -> list[_Counted]:
    """Judge each of several ``answers`` (logits [B, classes]) that a network gives at once."""
    network.eval()
    counted: list[_Counted] = []
    device = _device(network)
    with torch.inference_mode():
        for images, targets in labelled:
            targets = targets.to(device)
            logits = answers(images.to(device, memory_format=torch.channels_last))
            found = [_counted(one, targets, no_answer) for one in logits]
            counted = [a + b for a, b in zip(counted, found, strict=True)] if counted else found
    return counted


def answers_accuracy(logits: Tensor, targets: Tensor, no_answer: float = math.nan) -> Accuracy:
    """Judge logits [N, classes]; an image whose loss is not finite counts as one of ``no_answer``."""
    return _counted(logits, targets, no_answer).accuracy


def _counted(logits: Tensor, targets: Tensor, no_answer: float) -> _Counted:
    found = logits.argmax(1) == targets
    summed = float(F.cross_entropy(logits, targets, reduction="sum"))
    if not math.isfinite(summed):
        found &= ~logits.isnan().any(1)  # argmax takes a NaN for the largest
        each = F.cross_entropy(logits, targets, reduction="none")
        summed = float(torch.where(each.isfinite(), each, no_answer).sum())
    return _Counted(int(found.sum()), summed, len(targets))


def _device(network: nn.Module) -> torch.device:
    """Where the network's weights are; the CPU of one without any."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def judge(
    network: nn.Module,
    data: ImageData,
    split: Split,
    resolution: int,
    batch_size: int = 250,
    *,
    form_of: nn.Module | None = None,
) -> Accuracy:
    """Judge a network on a split at a resolution in pixels.

    Of the form of another one in fewer bits, ``form_of``, images without an answer count as
    ``NO_ANSWER_LOSS`` each, as in a search.
    """

    def labelled() -> Iterator[tuple[Tensor, Tensor]]:
        return _in_order(data, split, resolution, batch_size)

    found = _count(network, labelled())
    if form_of is not None and form_of is not network:
        found = _overflowing(found, network, form_of, labelled)
    return found.accuracy


def _overflowing(
    found: _Counted,
    form: nn.Module,
    network: nn.Module,
    labelled: Callable[[], Iterable[tuple[Tensor, Tensor]]],
) -> _Counted:
    """What counts of a network's form, of which that was ``found``, where its loss is not finite.

    Where the network's own loss is finite, values are too large for the precision, as they will be on the
    device: images without an answer are wrong there. Else the network is broken, and its loss says so.
    """
    if math.isfinite(found.loss) or not math.isfinite(_count(network, labelled()).loss):
        return found
    return _count(form, labelled(), NO_ANSWER_LOSS)


def _in_order(
    data: ImageData, split: Split, resolution: int, batch_size: int = 250
) -> Iterator[tuple[Tensor, Tensor]]:
    """A split's images and targets in batches, as they come."""
    return batches(
        split,
        batch_size=batch_size,
        resolution=resolution,
        normalisation=data.normalisation,
        shuffle_seed=None,
    )


class SubNetworkEvaluator:
    """Judges sub-networks on the validation split with the super-network's weights.

    BN is recalibrated on ``recalibration_images`` of the training split; ``validation_images`` (all
    when None) are drawn once, stratified. The same architecture and weights give the same accuracy.

    An architecture with a precision is judged as it answers in that one, simulated. ``symmetric_int8`` says
    which forms of int8 its targets take (see ``simulate``); of several, the least accurate counts.
    """

    def __init__(
        self,
        data: ImageData,
        *,
        seed: int,
        recalibration_images: int = 2000,
        validation_images: int | None = None,
        symmetric_int8: Sequence[bool] = (False,),
    ) -> None:
        self.data = data
        self.seed = seed
        self.symmetric_int8 = tuple(symmetric_int8)
        self.validation = data.validation
        if validation_images is not None and validation_images < len(data.validation):
            self.validation = data.validation.subset(validation_images, seed)
        count = min(recalibration_images, len(data.train))
        self.recalibration = data.train.subset(count, seed) if count < len(data.train) else data.train

    def network(self, supernet: AnySuperNetwork, architecture: Architecture) -> SubNetwork:
        """Return the sub-network with its BN recalibrated, in evaluation mode."""
        network = supernet.extract(architecture)
        self.recalibrate(network, architecture.resolution)
        return network

    def recalibrate(self, network: nn.Module, resolution: int) -> None:
        """Recompute a network's BN statistics at a resolution in pixels."""
        stream = batches(
            self.recalibration,
            batch_size=min(250, len(self.recalibration)),
            resolution=resolution,
            normalisation=self.data.normalisation,
            shuffle_seed=0,
            drop_last=True,
        )
        device = _device(network)
        recalibrate(network, (x.to(device, memory_format=torch.channels_last) for x, _ in stream))

    def __call__(self, supernet: AnySuperNetwork, architecture: Architecture) -> Accuracy:
        """Accuracy of the architecture on the validation split."""
        return self.judge(self.network(supernet, architecture), architecture, self.validation)

    def judge(self, network: nn.Module, architecture: Architecture, split: Split) -> Accuracy:
        """Accuracy of an architecture's network on a split, in the architecture's precision."""
        return next(self.looks(network, architecture, [split]))

    def first_classes(self, network: nn.Module, architecture: Architecture, split: Split) -> Tensor:
        """First class that an architecture's network gives each image in its precision, as int64 [N].

        Of several forms those of the least accurate; -1 for an image without an answer.
        """
        device = _device(network)
        found = []
        with torch.inference_mode():
            for form in self.in_precision(network, architecture):
                stream = self._in_order(split, architecture.resolution)
                logits = torch.cat([form(x.to(device, memory_format=torch.channels_last)) for x, _ in stream])
                found.append(logits.argmax(1).masked_fill(logits.isnan().any(1), -1).cpu())
        targets = split.targets.cpu()
        return min(found, key=lambda classes: int((classes == targets).sum()))

    def looks(
        self, network: nn.Module, architecture: Architecture, parts: Iterable[Split]
    ) -> Iterator[Accuracy]:
        """Yield the accuracy, in the architecture's precision, on the first part, the first two, and so on.

        Of several forms it is that of the least accurate on all images so far.
        """
        resolution = architecture.resolution
        forms = self.in_precision(network, architecture)
        faster = self._faster(network) if network in forms else network
        so_far = [_Counted() for _ in forms]
        for part in parts:
            for number, form in enumerate(forms):
                found = _count(faster if form is network else form, self._in_order(part, resolution))
                if form is not network:
                    labelled = partial(self._in_order, part, resolution)
                    found = _overflowing(found, form, network, labelled)
                so_far[number] += found
            yield min(so_far, key=lambda one: one.right).accuracy

    def passing(
        self,
        supernet: AnySuperNetwork,
        architecture: Architecture,
        passed: Sequence[Architecture],
        parts: Iterable[Split],
    ) -> Iterator[list[Accuracy]]:
        """Yield likewise the accuracies of an architecture, and of those that it passed, in 32-bit floats.

        They are what each has by itself, but all are run, and recalibrated, at once. For which it passes see
        ``SearchSpace.passed``.
        """
        asked = [architecture, *passed]
        exits = tuple(sorted({stage for one in asked for stage in one.exits}))
        network = self._faster(self.network(supernet, replace(architecture, exits=exits)))
        own = [
            ([exits.index(stage) for stage in one.exits], torch.full((len(one.exits),), 1 / len(one.exits)))
            for one in asked
        ]

        def answers(images: Tensor) -> list[Tensor]:
            logits = network.exit_logits(images)
            return [weighted([logits[i] for i in places], weights) for places, weights in own]

        so_far = [_Counted() for _ in asked]
        for part in parts:
            found = _count_each(network, answers, self._in_order(part, architecture.resolution))
            so_far = [a + b for a, b in zip(so_far, found, strict=True)]
            yield [one.accuracy for one in so_far]

    def _faster(self, network: Network) -> Network:
        """A network as it is judged: with BN folded into convolutions where that takes less than it saves."""
        return folded(network) if len(self.validation) >= _FOLD_FROM else network

    def _in_order(self, split: Split, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
        return _in_order(self.data, split, resolution)

    def in_precision(self, network: nn.Module, architecture: Architecture) -> list[nn.Module]:
        """An architecture's network as it answers in its precision, in each form that counts."""
        precision = architecture.precision or "fp32"
        forms = self.symmetric_int8 if precision == "int8" else (False,)
        return [
            simulate(network, precision, self._calibration(network, architecture), symmetric=symmetric)
            for symmetric in forms
        ]

    @cached_property
    def _calibration_split(self) -> Split:
        return self.data.train.subset(CALIBRATION_IMAGES, self.seed)

    def _calibration(self, network: nn.Module, architecture: Architecture) -> Iterator[Tensor]:
        """The images that an export calibrates on, in batches [B, 3, r, r]."""
        stream = batches(
            self._calibration_split,
            batch_size=_CALIBRATION_BATCH,
            resolution=architecture.resolution,
            normalisation=self.data.normalisation,
            shuffle_seed=None,
        )
        device = _device(network)
        for images, _ in stream:
            yield images.to(device, memory_format=torch.channels_last)
