"""Accuracy of networks, and of sub-networks with inherited weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.batches import batches
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.space.architecture import Architecture
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.recalibrate import recalibrate
from nat2deploy.training.simulated_precision import CALIBRATION_IMAGES, simulate

_CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Accuracy:
    """Share of images whose first guess is right, mean cross-entropy, and the number of images."""

    top1: float
    loss: float
    images: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval of ``top1``."""
        z, n, p = 1.96, self.images, self.top1
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # Rounding must push neither end past the share itself.
        return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def accuracy(network: nn.Module, labelled: Iterable[tuple[Tensor, Tensor]]) -> Accuracy:
    """Judge a network, in evaluation mode, on batches of (images [B, 3, r, r], targets [B])."""
    network.eval()
    right, loss, count = 0, 0.0, 0
    device = _device(network)
    with torch.inference_mode():
        for images, targets in labelled:
            targets = targets.to(device)
            logits = network(images.to(device, memory_format=torch.channels_last))
            right += int((logits.argmax(1) == targets).sum())
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            count += len(targets)
    return Accuracy(right / count, loss / count, count)


def _device(network: nn.Module) -> torch.device:
    """Where the network's weights are; the CPU of one without any."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def judge(
    network: nn.Module, data: ImageData, split: Split, resolution: int, batch_size: int = 250
) -> Accuracy:
    """Judge a network on a split at a resolution in pixels."""
    return accuracy(
        network,
        batches(
            split,
            batch_size=batch_size,
            resolution=resolution,
            normalisation=data.normalisation,
            shuffle_seed=None,
        ),
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
        symmetric_int8: tuple[bool, ...] = (False,),
    ) -> None:
        self.data = data
        self.seed = seed
        self.symmetric_int8 = symmetric_int8
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
        accuracies = [
            judge(form, self.data, split, architecture.resolution)
            for form in self.in_precision(network, architecture)
        ]
        return min(accuracies, key=lambda one: one.top1)

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
