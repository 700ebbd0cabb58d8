"""Small data sets in the published formats, written by the tests themselves."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from nat2deploy.data.sets import Split

Bytes = NDArray[np.uint8]


def idx_bytes(array: Bytes) -> bytes:
    """The idx file of an array of bytes."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def noise(seed: int, *shape: int) -> Bytes:
    """Random bytes of a shape."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_fashion(folder: Path, train: int = 60, test: int = 20, *, packed: bool = True) -> Path:
    """Write the four idx files of a small Fashion-MNIST, all ten labels in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate((("train", train), ("t10k", test))):
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", noise(seed, count, 28, 28)), ("labels-idx1", labels)):
            data = idx_bytes(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data, 1) if packed else data)
    return folder


def write_cifar(path: Path, labels: list[list[int]], pixels: Bytes) -> None:
    """Write CIFAR records: each one's label bytes, then its pixels [3, 32, 32]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bytes(lb) + px.tobytes() for lb, px in zip(labels, pixels, strict=True)))


def write_classes(folder: Path, counts: dict[str, int], *, first: int = 0, size: int = 12) -> Path:
    """Write one folder a class of one-coloured PNGs; each image's red is its number from ``first`` on."""
    number = first
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            Image.new("RGB", (size, size), (number, 7, 200)).save(folder / name / f"{number:03}.png")
            number += 1
    return folder


def reds(split: Split) -> list[int]:
    """The numbers of the images that ``write_classes`` wrote, sorted."""
    return sorted(split.images[:, 0, 0, 0].tolist())


def numbered(count: int, classes: int = 4, channels: int = 1) -> Split:
    """A split whose every image is told by its pixels, and whose target is its number modulo ``classes``."""
    images = torch.from_numpy(noise(count, count, channels, 6, 6))
    return Split(images, torch.arange(count) % classes)
