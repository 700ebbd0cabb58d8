"""Random shifts and flips, on whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Shift by up to ``pad`` pixels of the stored image, filled with black; ``flip`` half of them."""

    pad: int
    flip: bool

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """[N, C, H, W] to the same shape, each image by itself."""
        count, _, height, width = images.shape
        padded = F.pad(images, (self.pad,) * 4)
        span = 2 * self.pad + 1
        rows = torch.arange(height) + torch.randint(span, (count, 1), generator=generator)
        columns = torch.arange(width) + torch.randint(span, (count, 1), generator=generator)
        if self.flip:
            flipped = torch.rand(count, 1, generator=generator) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        number = torch.arange(count)[:, None, None]
        moved = padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]]
        return moved.permute(0, 3, 1, 2)
