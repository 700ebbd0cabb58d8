"""A search's images as one file, which several processes map into their memory instead of copying it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.sets import ImageData, Normalisation, Split
from nat2deploy.errors import UserError
from nat2deploy.supernet.checkpoint import load_tensors, save_tensors


def packed_images(data: ImageData) -> tuple[dict[str, Tensor], str]:
    """The training and validation splits as tensors by name, and JSON; a search never sees the test split."""
    described = {
        "name": data.name,
        "labels": data.labels,
        "mean": data.mean,
        "std": data.std,
        "pad": data.augment.pad,
        "flip": data.augment.flip,
    }
    tensors = {
        f"{name}.{part}": getattr(split, part)
        for name, split in (("train", data.train), ("validation", data.validation))
        for part in ("images", "targets")
    }
    return tensors, json.dumps(described)


def unpacked_images(tensors: Mapping[str, Tensor], text: str) -> ImageData:
    """The data set of ``packed_images``, over the same memory; its test split is empty."""
    held = json.loads(text)
    train, validation = (
        Split(tensors[f"{name}.images"], tensors[f"{name}.targets"]) for name in ("train", "validation")
    )
    mean, std = (tuple(map(float, held[key])) for key in ("mean", "std"))
    return ImageData(
        name=held["name"],
        labels=tuple(held["labels"]),
        train=train,
        validation=validation,
        test=validation.take(torch.arange(0)),
        normalisation=Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2])),
        augment=Augmentation(pad=int(held["pad"]), flip=bool(held["flip"])),
    )


def save_images(data: ImageData, path: Path) -> None:
    """Write the training and validation splits to a file, atomically."""
    save_tensors(path, *packed_images(data))


def load_images(path: Path) -> ImageData:
    """Map such a file into memory.

    Raises:
        UserError: missing or broken.
    """
    tensors, text = load_tensors(path, "images")
    try:
        return unpacked_images(tensors, text)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"images {path} cannot be read ({error}); delete the file and go on") from error
