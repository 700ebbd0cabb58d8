"""Data specs: ``digits``, ``fashion-mnist``, ``cifar10``, ``cifar100``, ``imagefolder:PATH``."""

from __future__ import annotations

from pathlib import Path

import torch

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.folder import read_image_folder
from nat2deploy.data.places import expand, is_folder
from nat2deploy.data.sets import ImageData, Split, channel_statistics, stratified
from nat2deploy.data.standard import cifar10, cifar100, digits, fashion_mnist
from nat2deploy.errors import UserError
from nat2deploy.nearest import nearest

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
    """Load a data set with its three splits; the search never sees the test split.

    Training, search, fine-tuning and export leave ``seed`` at its default, whatever theirs is: with splits of
    its own, a search would validate on images that its super-network was trained on.

    ``validation`` (an int: images; a float below 1: a share of the training images) is held out of the
    training images, stratified by class and drawn by ``seed``. By default: 20 % of digits, 5,000 images of
    Fashion-MNIST and CIFAR, 15 % of folders. A folder's own validation and test splits are used as they
    are, whatever ``validation`` says.

    The test split is the same for every seed, except of a folder that has none: there 15 % of the images
    are drawn by ``seed``, which leaves 70 % for training if it has no validation split either.

    ``base_resolution`` is the stored size in pixels of images from folders; ``max_train`` cuts the training
    split, stratified, after the others were drawn; mean and std are those of what is left.

    Raises:
        UserError: an unknown spec, a number out of range, or files that are missing or broken.
    """
    if not spec.isprintable():
        raise UserError(f"data spec {spec[:80]!r} holds characters that cannot be printed; remove them")
    for what, number, least in (("seed", seed, 0), ("base_resolution", base_resolution, 1)):
        if number < least:
            raise UserError(f"data set {spec}: {what} is {number}; give {least} or more")
    if max_train is not None and max_train < 1:
        raise UserError(f"data set {spec}: max_train is {max_train}; give 1 or more")
    name, _, place = spec.partition(":")
    if name == "imagefolder":
        if not place:
            raise UserError("data set imagefolder needs a path: imagefolder:PATH")
        labels, train, held_out, test = read_image_folder(expand(place), base_resolution)
        augment = Augmentation(pad=base_resolution // 8, flip=True)
        share: int | float = _FOLDER_SHARE
        if test is None:
            # Both shares are of all images: 15 % of what test leaves would be less.
            share = max(1, round(len(train) * _FOLDER_SHARE))
            train, test = _hold_out(train, share, seed + 1, spec)
    elif name in _STANDARD:
        reader, share = _STANDARD[name]
        labels, train, test, augment = reader(place or None)
        held_out = None
    else:
        names = [*_STANDARD, "imagefolder"]
        near = nearest(name, names)
        hint = f"did you mean {near}?" if near else f"use one of {', '.join(names)}:PATH"
        if spec and is_folder(Path(spec)):
            hint = f"for the images in that folder give imagefolder:{spec}"
        raise UserError(f"no data set '{spec[:80]}'; {hint}")
    if held_out is None:
        train, held_out = _hold_out(train, share if validation is None else validation, seed, spec)
    if name == "imagefolder":
        _check_each_is_left(labels, train, spec)
    if max_train is not None:
        train = train.subset(max_train, seed)
    return ImageData(spec, labels, train, held_out, test, channel_statistics(train.images), augment)


def _check_each_is_left(labels: tuple[str, ...], train: Split, spec: str) -> None:
    """Refuse data of so few images that a class has none to train on."""
    for label, count in zip(labels, torch.bincount(train.targets, minlength=len(labels)), strict=True):
        if count == 0:
            raise UserError(
                f"data set {spec}: of class '{label}' all images are held out for validation and test; "
                "put more in"
            )


def _hold_out(train: Split, amount: int | float, seed: int, spec: str) -> tuple[Split, Split]:
    """Split into (kept, held out)."""
    if isinstance(amount, float) and not 0 < amount < 1:  # NaN, too
        raise UserError(
            f"data set {spec}: validation is {amount}; give a share between 0 and 1, or a number of images"
        )
    count = round(len(train) * amount) if isinstance(amount, float) else amount
    if not 0 < count < len(train):
        raise UserError(
            f"data set {spec}: {count} of {len(train)} images to hold out; leave 1 or more on either side"
        )
    inside, outside = stratified(train.targets, count, seed)
    return train.take(outside), train.take(inside)
