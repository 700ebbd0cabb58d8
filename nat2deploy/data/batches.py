"""Batches: deterministic for a seed, and able to begin in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.data.sets import Normalisation, Split


def batch_count(split: Split, batch_size: int, *, drop_last: bool = False) -> int:
    """Batches in one pass over a split."""
    return len(split) // batch_size if drop_last else -(-len(split) // batch_size)


def batches(
    split: Split,
    *,
    batch_size: int,
    resolution: int | Callable[[], int],
    normalisation: Normalisation,
    shuffle_seed: int | None,
    augment: Augmentation | None = None,
    drop_last: bool = False,
    start: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images float32 [B, 3, r, r], targets int64 [B]) for one pass, from batch ``start`` on.

    Order and augmentation depend on (``shuffle_seed``, batch number) alone; without a seed the order
    is the split's. A callable ``resolution`` is asked once before each batch.
    """
    order = torch.arange(len(split))
    if shuffle_seed is not None:
        order = torch.from_numpy(np.random.default_rng([shuffle_seed, 5]).permutation(len(split)))
    for number in range(start, batch_count(split, batch_size, drop_last=drop_last)):
        part = split.take(order[number * batch_size : (number + 1) * batch_size])
        size = resolution() if callable(resolution) else resolution
        images = part.images
        if augment is not None:
            seed = int(np.random.default_rng([shuffle_seed or 0, number, 6]).integers(2**62))
            images = augment.apply(images, torch.Generator().manual_seed(seed))
        path = Preprocessing(resolution=size, mean=normalisation.mean, std=normalisation.std)
        yield path.apply(images), part.targets
