"""Images in folders, one folder a class."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import UnidentifiedImageError
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from nat2deploy.data.sets import Split
from nat2deploy.errors import UserError

_VALIDATION = ("val", "valid", "validation")


def read_image_folder(
    path: Path, base_resolution: int
) -> tuple[tuple[str, ...], Split, Split | None, Split | None]:
    """Read ``path`` and return (labels, train, validation or None, test or None).

    Either ``path/train`` with ``val`` (``valid``, ``validation``) and ``test`` beside it, or class folders
    at once. Images become RGB, shorter side ``base_resolution`` pixels, centre-cropped, uint8 in memory.

    Raises:
        UserError: no folder, no images, a broken image, or classes that differ between splits.
    """
    if not path.is_dir():
        raise UserError(f"no image folder at {path}; check the path")
    if not (path / "train").is_dir():
        labels, whole = _read(path, base_resolution)
        return labels, whole, None, None
    labels, train = _read(path / "train", base_resolution)
    others: list[Split | None] = []
    for names in (_VALIDATION, ("test",)):
        place = next((path / name for name in names if (path / name).is_dir()), None)
        if place is None:
            others.append(None)
            continue
        found, split = _read(place, base_resolution)
        if found != labels:
            raise UserError(f"{place} has other class folders than {path / 'train'}; make them agree")
        others.append(split)
    return labels, train, others[0], others[1]


def _read(path: Path, base_resolution: int) -> tuple[tuple[str, ...], Split]:
    transform = v2.Compose(
        [
            v2.RGB(),
            v2.Resize(base_resolution, antialias=True),
            v2.CenterCrop(base_resolution),
            v2.PILToTensor(),
        ]
    )
    try:
        listing = ImageFolder(str(path), transform=transform)
    except (FileNotFoundError, OSError) as error:
        raise UserError(
            f"{path} holds no class folders with images; put them in {path}/CLASS/*.png"
        ) from error
    if len(listing.classes) < 2:
        raise UserError(f"{path} holds one class, '{listing.classes[0]}'; a classifier needs two or more")
    images = []
    for index, (name, _) in enumerate(listing.samples):
        try:
            images.append(listing[index][0])
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise UserError(f"image {name} cannot be read; mend or remove it") from error
    return tuple(listing.classes), Split(torch.stack(images), torch.tensor(listing.targets))
