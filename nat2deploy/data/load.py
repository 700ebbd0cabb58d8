"""Data specs: ``digits``, ``fashion-mnist``, ``cifar10``, ``cifar100``, ``imagefolder:PATH``."""

from __future__ import annotations

import difflib
from pathlib import Path

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.folder import read_image_folder
from nat2deploy.data.sets import ImageData, Split, channel_statistics, stratified
from nat2deploy.data.standard import cifar10, cifar100, digits, fashion_mnist
from nat2deploy.errors import UserError

# Spec -> (reader, validation images by default: a number, or a share of the training images).
_STANDARD = {
    "digits": (digits, 0.2),
    "fashion-mnist": (fashion_mnist, 5000),
    "cifar10": (cifar10, 5000),
    "cifar100": (cifar100, 5000),
}
_FOLDER_SHARE = 0.15


def load_data(
    spec: str,
    *,
    seed: int = 0,
    validation: int | float | None = None,
    base_resolution: int = 64,
    max_train: int | None = None,
) -> ImageData:
    """Load a data set with its three splits.

    ``validation`` images (a number, or a share below 1) are held out of the training images, stratified
    by class and drawn by ``seed``; a folder's own validation and test splits are used as they are. The
    test split is the same for every seed, except of a folder that has none: there it is drawn like
    validation. ``base_resolution`` is the stored size in pixels of images from folders; ``max_train`` cuts
    the training split, stratified.

    Raises:
        UserError: an unknown spec, or files that are missing or broken.
    """
    name, _, place = spec.partition(":")
    if name == "imagefolder":
        if not place:
            raise UserError("data set imagefolder needs a path: imagefolder:PATH")
        labels, train, held_out, test = read_image_folder(Path(place).expanduser(), base_resolution)
        augment, share = Augmentation(pad=base_resolution // 8, flip=True), _FOLDER_SHARE
        if test is None:
            train, test = _hold_out(train, _FOLDER_SHARE, seed + 1, spec)
    elif name in _STANDARD:
        reader, share = _STANDARD[name]
        labels, train, test, augment = reader(place or None)
        held_out = None
    else:
        names = [*_STANDARD, "imagefolder"]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}:PATH"
        raise UserError(f"no data set '{spec[:80]}'; {hint}")
    if held_out is None:
        train, held_out = _hold_out(train, share if validation is None else validation, seed, spec)
    if max_train is not None:
        train = train.subset(max_train, seed)
    return ImageData(spec, labels, train, held_out, test, channel_statistics(train.images), augment)


def _hold_out(train: Split, amount: int | float, seed: int, spec: str) -> tuple[Split, Split]:
    """Split into (kept, held out)."""
    count = round(len(train) * amount) if amount < 1 else int(amount)
    if not 0 < count < len(train):
        raise UserError(f"data set {spec}: {count} of {len(train)} images to hold out; give more images")
    inside, outside = stratified(train.targets, count, seed)
    return train.take(outside), train.take(inside)
