"""Images in folders, one folder a class."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nat2deploy.data.places import is_folder
from nat2deploy.data.preprocess import centre
from nat2deploy.data.sets import Split
from nat2deploy.errors import UserError, first_line
from nat2deploy.machine import memory_bytes

if TYPE_CHECKING:
    from PIL import Image

# What folders of splits are called, in letters of either case.
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Kinds of images that are not read: left out silently, they would be missed in training.
_OTHER_IMAGES = {
    *(".gif", ".heic", ".heif", ".avif", ".jfif", ".jp2", ".jxl", ".svg", ".tga", ".psd"),
    *(".pnm", ".pbm", ".pam", ".jpe"),
    *(".cr2", ".nef", ".arw", ".dng"),
}
_KINDS = "PNG, JPEG, WebP, TIFF, BMP, PPM and PGM"


def read_image_folder(
    path: Path, base_resolution: int
) -> tuple[tuple[str, ...], Split, Split | None, Split | None]:
    """Read ``path`` and return (labels, train, validation or None, test or None).

    Either ``path/train`` (``training``) with ``val`` (``valid``, ``validation``, ``dev``) and ``test``
    (``testing``) beside it, in letters of either case, or class folders at once. Images become RGB, shorter
    side ``base_resolution`` pixels (bilinear, antialiased), centre-cropped: uint8 [N, 3, base_resolution,
    base_resolution] in memory. Grey of 16 bits becomes 8 as in a bundle's runner. Files and folders whose
    names begin with a dot do not count.

    Raises:
        UserError: no folder, no images, a broken image or one of a kind that is not read, more images
            than memory holds, an image in two splits, a class name that
            cannot be printed, two folders of one split, or classes that differ between splits.
    """
    if not is_folder(path):
        raise UserError(f"no image folder at {path}; check the path")
    places = _split_folders(path)
    if "train" not in places:
        for place in places.values():
            # Else the splits would be taken for the classes.
            raise UserError(f"{path} has a folder {place.name} but no folder train; add it, or give {place}")
        labels, whole, _ = _read(path, base_resolution, split=False)
        return labels, whole, None, None
    labels, train, files = _read(places["train"], base_resolution)
    others: list[Split | None] = []
    seen = {os.path.realpath(name): name for name in files}
    for split in ("validation", "test"):
        if split not in places:
            others.append(None)
            continue
        found, images, files = _read(places[split], base_resolution)
        if found != labels:
            one = sorted(set(labels) ^ set(found))[0]
            raise UserError(
                f"{places[split]} has other class folders than {places['train']}: '{one}' is in one of them; "
                "make them agree"
            )
        here = {os.path.realpath(name): name for name in files}
        for real in sorted(here.keys() & seen.keys()):
            raise UserError(f"image {here[real]} is {seen[real]} once more, by a link; remove the link")
        seen |= here
        others.append(images)
    return labels, train, others[0], others[1]


def _split_folders(path: Path) -> dict[str, Path]:
    """The folders of splits in ``path``, by split, training first."""
    try:
        folders = sorted(place for place in path.iterdir() if is_folder(place))
    except OSError as error:
        raise UserError(f"cannot read folder {path}: {error.strerror or error}") from error
    found: dict[str, Path] = {}
    for split, names in _SPLITS.items():
        for place in (one for one in folders if one.name.casefold() in names):
            if split in found:
                raise UserError(
                    f"{path} has folders {found[split].name} and {place.name}, both for {split}; keep one"
                )
            found[split] = place
    return found


def _read(
    path: Path, base_resolution: int, *, split: bool = True
) -> tuple[tuple[str, ...], Split, list[str]]:
    """Return labels, images and their files' names, of a ``split`` or of all there is."""
    # Here, because importing it takes over a second, and only folders need it.
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import is_image_file
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RGB(),
            v2.Resize(base_resolution, antialias=True),
            v2.PILToTensor(),
            partial(centre, resolution=base_resolution),
        ]
    )

    class Visible(ImageFolder):  # type: ignore[misc]  # torchvision has no types
        """Without what begins with a dot: file managers' and notebooks' own."""

        def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
            found, _ = super().find_classes(directory)
            classes = [name for name in found if not name.startswith(".")]
            if not classes:
                raise FileNotFoundError
            return classes, {name: index for index, name in enumerate(classes)}

    unread: list[str] = []

    def is_visible(name: str) -> bool:
        if any(part.startswith(".") for part in Path(name).relative_to(path).parts):
            return False
        if Path(name).suffix.lower() in _OTHER_IMAGES:
            unread.append(name)
        return bool(is_image_file(name))

    try:
        listing = Visible(
            str(path), transform=transform, loader=_load, is_valid_file=is_visible, allow_empty=True
        )
    except OSError as error:
        alone = any(is_image_file(place.name) for place in path.iterdir())
        hint = "; if it is a class and no split, rename it" if alone and split else ""
        raise UserError(
            f"{path} holds no class folders with images; put them in {path}/CLASS/*.png{hint}"
        ) from error
    if unread:
        more = f" (and {len(unread) - 1} more of such kinds)" if len(unread) > 1 else ""
        raise UserError(f"image {unread[0]}{more}: {_KINDS} are read; convert or remove it")
    for label in listing.classes:
        _check_label(label, path)
    _check_links(sorted({str(Path(name).parent) for name, _ in listing.samples}))
    targets = torch.tensor(listing.targets, dtype=torch.int64)
    for label, count in zip(
        listing.classes, torch.bincount(targets, minlength=len(listing.classes)), strict=True
    ):
        if count == 0:
            raise UserError(f"class folder {path / label} holds no images; put some in, or remove the folder")
    if len(listing.classes) < 2:
        raise UserError(f"{path} holds one class, '{listing.classes[0]}'; a classifier needs two or more")
    _check_memory(len(targets), base_resolution, path)
    images = torch.empty((len(targets), 3, base_resolution, base_resolution), dtype=torch.uint8)
    for index, (name, _) in enumerate(listing.samples):
        try:
            images[index] = listing[index][0]
        except MemoryError:
            raise
        except Exception as error:  # the decoders raise a dozen classes
            raise UserError(f"image {name} cannot be read ({_why(error)}); mend or remove it") from error
    return tuple(listing.classes), Split(images, targets), [name for name, _ in listing.samples]


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)[:200]


def _check_memory(count: int, resolution: int, path: Path) -> None:
    """Refuse what the machine cannot hold: all images, and once more while they are split."""
    needed, have = 2 * 3 * count * resolution**2, memory_bytes()
    if have is not None and needed > have:
        raise UserError(
            f"{path}: to read {count} images of {resolution} pixels takes {needed / 1e9:.0f} GB of memory, "
            f"this machine has {have / 1e9:.0f} GB; use fewer of them, or a space of lower resolutions"
        )


def _check_links(folders: Sequence[str]) -> None:
    """Refuse folders that are another one by a link: copies of an image would be on both sides of a split."""
    first: dict[str, str] = {}
    for folder in folders:
        held = first.setdefault(os.path.realpath(folder), folder)
        if held != folder:
            raise UserError(f"{folder} is {held} once more, by a link; remove the link")


def _check_label(label: str, path: Path) -> None:
    """Refuse a name that a bundle cannot hold, before anything is trained for it."""
    # Control characters, halves of a pair (bytes that are no UTF-8), and breaks of lines and paragraphs.
    odd = any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in label)
    if odd or not label.strip():
        raise UserError(
            f"class folder {label!r} in {str(path)!r} has a name that is no printable line; rename it"
        )


def _load(name: str) -> Image.Image:
    """Open an image; grey of 16 bits becomes the 8 that a bundle's runner makes of it."""
    from PIL import Image

    with Image.open(name) as image:
        deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
        if not deep and image.mode in ("F", "I"):
            raise ValueError("its values are of 32 bits; convert it to 8 or 16 bits")
        if not deep:
            return image.convert("RGB")
        values = np.asarray(image).astype(np.int64)
        # Pillow clips them; a PNG's high byte is meant, and a PGM's share of its largest value.
        eight = (values * 510 + 65535) // 131070 if image.format == "PPM" else values >> 8
        return Image.fromarray(eight.astype(np.uint8)).convert("RGB")
