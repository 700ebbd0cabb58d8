"""Teachers: frozen copies of a super-network's full network, whose predictions sub-networks follow."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nat2deploy.data.batches import batches
from nat2deploy.data.sets import ImageData
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.losses import ExitWeights, exit_weights
from nat2deploy.training.recalibrate import recalibrate

_IMAGES, _BATCH = 2000, 250


def full_teacher(supernet: AnySuperNetwork, order: ExitWeights = "ascending") -> nn.Module:
    """A frozen copy of the full network, in evaluation mode: of several exits the ensemble (ENS-KD).

    Of several widths, it is that of the widest super-network. Its BN statistics are the super-network's, of
    whatever was trained last: see ``CalibratedTeacher``.
    """
    full = supernet.space.full()
    teacher = supernet.extract(full).eval()
    teacher.exit_weights.copy_(torch.tensor(exit_weights(full.exits, len(supernet.space.stages), order)))
    return teacher.requires_grad_(False)


class CalibratedTeacher(nn.Module):
    """``full_teacher`` with BN statistics of its own, at each resolution that it is asked at.

    Sub-networks leave statistics in a super-network that are wrong for the full network, whose predictions
    would be next to random with them; and those of one resolution are wrong at another. They are computed on
    training images of ``data``, drawn by ``seed``, when a resolution first comes up: on 2,000, or, in batches
    of 250, on no more than the ``epochs`` have that it teaches at a time, or short training would mostly be
    this. ``order`` says which exits count most.
    """

    def __init__(
        self,
        supernet: AnySuperNetwork,
        data: ImageData,
        seed: int,
        order: ExitWeights = "ascending",
        *,
        epochs: float,
    ) -> None:
        super().__init__()
        self.network = full_teacher(supernet, order)
        self.seed = seed
        self.normalisation = data.normalisation
        taught = _BATCH * max(1, math.ceil(epochs * len(data.train) / _BATCH))  # in whole batches
        self.images = data.train.subset(min(len(data.train), _IMAGES, taught), seed)
        self._statistics: dict[int, dict[str, Tensor]] = {}
        self._resolution = 0
        self._turn_to(supernet.space.resolutions[-1])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, r, r] to logits [B, classes]."""
        self._turn_to(images.shape[-1])
        return self.network(images)  # type: ignore[no-any-return]

    def _turn_to(self, resolution: int) -> None:
        if resolution == self._resolution:
            return
        if resolution not in self._statistics:
            recalibrate(self.network, self._stream(resolution))
            held = self.network.named_buffers()
            self._statistics[resolution] = {name: buffer.clone() for name, buffer in held}
        for name, buffer in self.network.named_buffers():
            buffer.copy_(self._statistics[resolution][name])
        self._resolution = resolution

    def _stream(self, resolution: int) -> Iterator[Tensor]:
        device = next(self.network.parameters()).device
        for images, _ in batches(
            self.images,
            batch_size=min(_BATCH, len(self.images)),
            resolution=resolution,
            normalisation=self.normalisation,
            shuffle_seed=self.seed,
            drop_last=True,
        ):
            yield images.to(device)
