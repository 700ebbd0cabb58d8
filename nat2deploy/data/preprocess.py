"""From raw images to network input: one path for training, judging and deployment."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

Channel = Annotated[float, Field(ge=-100.0, le=100.0)]
Positive = Annotated[float, Field(gt=0.0, le=100.0)]


class Preprocessing(BaseModel):
    """RGB; shorter side to ``resolution`` (bilinear, antialiased); centre crop; /255; minus mean, by std.

    A bundle's manifest stores it, and its runner repeats it with numpy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: Annotated[int, Field(ge=1, le=4096)]
    mean: tuple[Channel, Channel, Channel]
    std: tuple[Positive, Positive, Positive]

    def apply(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 or 3, H, W] to float32 [N, 3, resolution, resolution]."""
        pixels = resize(images, self.resolution) / 255.0
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        std = torch.tensor(self.std).view(1, 3, 1, 1)
        return (pixels.expand(-1, 3, -1, -1) - mean) / std


def resize(images: Tensor, resolution: int) -> Tensor:
    """Shorter side to ``resolution``, then the centre: [N, C, H, W] to float32 [N, C, r, r]."""
    pixels = images.float()
    height, width = pixels.shape[-2:]
    short = min(height, width)
    size = (max(resolution, height * resolution // short), max(resolution, width * resolution // short))
    if size != (height, width):
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    return centre(pixels, resolution)


def centre(images: Tensor, resolution: int) -> Tensor:
    """The central square of [..., H, W]: [..., r, r]; of an odd excess the larger half is cut behind it."""
    top, left = ((size - resolution) // 2 for size in images.shape[-2:])
    return images[..., top : top + resolution, left : left + resolution]
