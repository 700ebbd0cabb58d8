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
    return np.minimum(places, size_in - 1), weights.astype(np.float32)


def resize_and_crop(image: Pixels, resolution: int) -> Floats:
    """Resize the shorter side to ``resolution`` and crop the centre: [H, W, C] to [r, r, C], 0 to 255.

    Only what the crop keeps is computed.
    """
    short = min(image.shape[:2])
    pixels: Any = image
    for axis in (1, 0):  # a row's pixels lie together, so fewer columns first
        size = image.shape[axis]
        resized = resolution * size // short
        first = (resized - resolution) // 2
        if resized == size:
            pixels = pixels[:, first : first + resolution] if axis else pixels[first : first + resolution]
        else:
            pixels = _resize(pixels, axis, *taps(size, resized, first, resolution))
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _resize(pixels: Any, axis: int, places: Indices, weights: Floats) -> Floats:
    """Take the weighted sum of each output's taps along an axis, one tap of all outputs at a time."""
    shape = (1, -1, 1) if axis else (-1, 1, 1)
    total: Any = None
    for tap in range(places.shape[1]):
        part = np.take(pixels, places[:, tap], axis) * weights[:, tap].reshape(shape)
        total = part if total is None else np.add(total, part, total)
    return total  # type: ignore[no-any-return]


def preprocess(image: Pixels, spec: dict[str, Any]) -> Floats:
    """RGB [H, W, 3] to the network's input [3, r, r], as the manifest's ``spec`` says."""
    pixels = resize_and_crop(image, int(spec["resolution"])) / np.float32(255)
    mean, std = (np.asarray(spec[key], np.float32) for key in ("mean", "std"))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))
