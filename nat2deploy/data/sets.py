"""A data set in memory: images, targets, splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nat2deploy.data.augment import Augmentation
from nat2deploy.errors import UserError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, of pixels in 0..1."""

    mean: Triple
    std: Triple


@dataclass(frozen=True, eq=False)  # tensors do not compare to one truth; use fingerprint()
class Split:
    """``images`` uint8 [N, 1 or 3, H, W] (grey stays one channel) and ``targets`` int64 [N]."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.targets)

    def take(self, indices: Tensor) -> Split:
        """The images at ``indices`` int64 [K], in that order."""
        return Split(self.images[indices], self.targets[indices])

    def subset(self, count: int, seed: int) -> Split:
        """Up to ``count`` images, stratified by class and in random order; the same for a seed."""
        chosen, _ = stratified(self.targets, min(count, len(self)), seed)
        return self.take(chosen)

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.targets.contiguous().numpy().data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels and targets."""
        return self._digest


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: the search sees ``train`` and ``validation``, never ``test``, which is for the end.

    ``name`` is the spec that it was loaded by; ``labels`` are the classes' names, by target.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    normalisation: Normalisation
    augment: Augmentation

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def mean(self) -> Triple:
        """Channel means of the training split, in 0..1."""
        return self.normalisation.mean

    @property
    def std(self) -> Triple:
        """Channel standard deviations of the training split, in 0..1."""
        return self.normalisation.std

    def fingerprint(self, *, test: bool = True) -> str:
        """SHA-256 of the labels and all three splits; without ``test`` of what a search sees."""
        splits = (self.train, self.validation, *([self.test] if test else []))
        parts = [split.fingerprint() for split in splits]
        return hashlib.sha256(repr((self.labels, parts)).encode()).hexdigest()


def stratified(targets: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` of N indices with each class in its share; returns (drawn, the rest), both shuffled.

    Shares are rounded so that they sum to ``count``, the largest remainders first.

    Raises:
        UserError: ``count`` is negative or above N.
    """
    if not 0 <= count <= len(targets):
        raise UserError(f"{count} images asked for, of {len(targets)}; give 0 to {len(targets)}")
    if count == 0:
        return torch.empty(0, dtype=torch.int64), torch.arange(len(targets))
    rng = np.random.default_rng([seed, 17])
    labels = targets.numpy()
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * (count / len(labels))
    quota = np.floor(exact).astype(np.int64)
    for index in np.argsort(-(exact - quota), kind="stable")[: count - int(quota.sum())]:
        quota[index] += 1
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in zip(classes, quota, strict=True)
    ]
    inside = rng.permutation(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)
    outside = rng.permutation(np.setdiff1d(np.arange(len(labels)), inside))
    return torch.from_numpy(inside), torch.from_numpy(outside)


def channel_statistics(images: Tensor) -> Normalisation:
    """Mean and standard deviation of uint8 images [N, 1 or 3, H, W]; grey counts for all three channels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        histogram = torch.bincount(channel.reshape(-1), minlength=256).double()
        share = histogram / histogram.sum()
        centre = float((share * levels).sum())
        mean.append(round(centre, 6))
        std.append(round(max(1e-3, float((share * (levels - centre) ** 2).sum().sqrt())), 6))
    repeat = 3 // len(mean)
    m, s = mean * repeat, std * repeat
    return Normalisation((m[0], m[1], m[2]), (s[0], s[1], s[2]))
