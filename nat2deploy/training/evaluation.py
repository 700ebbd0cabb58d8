"""Accuracy of networks, and of sub-networks with inherited weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.batches import batches
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.intervals import wilson
from nat2deploy.space.architecture import Architecture
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.recalibrate import recalibrate


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
    """

    def __init__(
        self,
        data: ImageData,
        *,
        seed: int,
        recalibration_images: int = 2000,
        validation_images: int | None = None,
    ) -> None:
        self.data = data
        self.validation = data.validation
        if validation_images is not None and validation_images < len(data.validation):
            self.validation = data.validation.subset(validation_images, seed)
        count = min(recalibration_images, len(data.train))
        self.recalibration = data.train.subset(count, seed) if count < len(data.train) else data.train

    def network(self, supernet: SuperNetwork, architecture: Architecture) -> SubNetwork:
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

    def __call__(self, supernet: SuperNetwork, architecture: Architecture) -> Accuracy:
        """Accuracy of the architecture on the validation split."""
        network = self.network(supernet, architecture)
        return judge(network, self.data, self.validation, architecture.resolution)
