"""From pixels to the network's input with numpy: what PyTorch did in training, within rounding."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Floats = NDArray[np.float32]
    Indices = NDArray[np.int64]


@lru_cache(maxsize=32)
def taps(size_in: int, size_out: int, first: int, count: int) -> tuple[Indices, Floats]:
    """Return where and how much ``count`` outputs of an antialiased bilinear resize of one axis take.

    The triangle filter widens with the scale, as in PyTorch's ``interpolate(antialias=True)``. Both arrays
    are [count, taps]; an output with fewer taps has weights of zero.
    """
    scale = size_in / size_out
    reach = max(scale, 1.0)
    centres = scale * (np.arange(first, first + count) + 0.5)
    lows = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    highs = np.minimum((centres + reach + 0.5).astype(np.int64), size_in)
    places = lows[:, None] + np.arange(int((highs - lows).max()))
    weights = np.maximum(1.0 - np.abs(places + 0.5 - centres[:, None]) / reach, 0.0)
    weights[places >= highs[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    return np.minimum(places, size_in - 1)[:, used], weights[:, used].astype(np.float32)


def resize_and_crop(image: Pixels, resolution: int) -> Floats:
    """Resize the shorter side to ``resolution`` and crop the centre: [H, W, C] to [r, r, C], 0 to 255.

    Only what the crop keeps is computed.
    """
    short = min(image.shape[:2])
    resized = [resolution * size // short for size in image.shape[:2]]
    rows, columns = (
        taps(size, new, (new - resolution) // 2, resolution) for size, new in zip(image.shape, resized)
    )
    left, right = int(columns[0].min()), int(columns[0].max()) + 1
    pixels = _resize_rows(image[:, left:right], *rows)
    pixels = _resize_rows(np.ascontiguousarray(pixels.transpose(1, 0, 2)), columns[0] - left, columns[1])
    return np.ascontiguousarray(pixels.transpose(1, 0, 2))


def _resize_rows(pixels: Any, places: Indices, weights: Floats) -> Floats:
    """Weigh the rows that each output row takes, one tap of all outputs at a time."""
    total: Any = None
    for place, weight in zip(places.T, weights.T[..., None, None]):
        part = pixels[place] * weight
        total = part if total is None else np.add(total, part, total)
    return total  # type: ignore[no-any-return]


def preprocess(image: Pixels, spec: dict[str, Any]) -> Floats:
    """RGB [H, W, 3] to the network's input [3, r, r], as the manifest's ``spec`` says."""
    pixels = resize_and_crop(image, int(spec["resolution"])) / np.float32(255)
    mean, std = (np.asarray(spec[key], np.float32) for key in ("mean", "std"))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))
