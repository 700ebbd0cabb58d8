"""The standard data sets: digits, Fashion-MNIST, CIFAR-10 and CIFAR-100.

Each reader returns (labels, training images and targets, test images and targets, augmentation).
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.idx import read_idx
from nat2deploy.data.places import candidates, find
from nat2deploy.data.sets import Split, stratified
from nat2deploy.errors import UserError
from nat2deploy.files import read_text

Parts = tuple[tuple[str, ...], Split, Split, Augmentation]

_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS_TEST = 360


def digits(folder: str | None) -> Parts:
    """scikit-learn's 1,797 digits of 8×8; the same 360 are the test split for every seed."""
    if folder is not None:
        raise UserError("data set digits is embedded and takes no folder; write --data digits")
    rows = _digits_rows()  # 64 pixels from 0 to 16, then the digit
    pixels = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    whole = Split(torch.from_numpy(pixels), torch.from_numpy(rows[:, -1].astype(np.int64)))
    test, train = stratified(whole.targets, _DIGITS_TEST, seed=0)
    labels = tuple(str(digit) for digit in range(10))
    return labels, whole.take(train), whole.take(test), Augmentation(pad=1, flip=False)


def _digits_rows() -> NDArray[np.float64]:
    """Read scikit-learn's file, if it lies where it did for ten years: to load the library takes a second."""
    spec = find_spec("sklearn")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits

    raw = load_digits()
    return np.column_stack([raw.data, raw.target])


def fashion_mnist(folder: str | None) -> Parts:
    """Fashion-MNIST from its four idx files."""
    places = candidates(
        folder,
        "fashion-mnist",
        "FashionMNIST/raw",
        system=("/usr/share/datasets/fashion-mnist",),
    )
    names = [
        f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    paths = find(
        "fashion-mnist",
        places,
        names,
        "install Debian's package dataset-fashion-mnist, or let torchvision.datasets.FashionMNIST(ROOT, "
        "download=True) fetch it and give fashion-mnist:ROOT",
    )
    train, test = (_labelled(paths[names[i]], paths[names[i + 1]], len(_FASHION)) for i in (0, 2))
    return _FASHION, train, test, Augmentation(pad=2, flip=True)


def _labelled(images: Path, targets: Path, classes: int) -> Split:
    pixels, labels = read_idx(images), read_idx(targets)
    if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels) or len(labels) == 0:
        raise UserError(f"{images} and {targets} do not belong together; fetch both again")
    if int(labels.max()) >= classes:
        raise UserError(
            f"{targets} holds label {int(labels.max())}, beyond {classes} classes; fetch it again"
        )
    return Split(pixels[:, None], labels.long())


def cifar10(folder: str | None) -> Parts:
    """CIFAR-10 from its binary version."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    paths = find("cifar10", candidates(folder, "cifar-10-batches-bin"), names, _cifar_help("cifar10"))
    parts = [_records(paths[name], 1, 10) for name in names]
    train = Split(torch.cat([p.images for p in parts[:-1]]), torch.cat([p.targets for p in parts[:-1]]))
    return _CIFAR10, train, parts[-1], Augmentation(pad=4, flip=True)


def cifar100(folder: str | None) -> Parts:
    """CIFAR-100, fine labels, from its binary version."""
    names = ["train.bin", "test.bin", "fine_label_names.txt"]
    paths = find("cifar100", candidates(folder, "cifar-100-binary"), names, _cifar_help("cifar100"))
    labels = tuple(read_text(paths[names[2]], "list of label names").split())
    if len(labels) != 100:
        raise UserError(f"{paths[names[2]]} holds {len(labels)} names instead of 100; fetch it again")
    train, test = (_records(paths[name], 2, 100) for name in names[:2])
    return labels, train, test, Augmentation(pad=4, flip=True)


def _cifar_help(name: str) -> str:
    return (
        f"fetch the binary version from the data set's home page, unpack it, and give {name}:FOLDER "
        "(torchvision's copy is pickle, which is not read)"
    )


def _records(path: Path, label_bytes: int, classes: int) -> Split:
    """Records of ``label_bytes`` labels (the last one counts) and 3×32×32 pixels."""
    size = label_bytes + 3 * 32 * 32
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if len(raw) == 0 or len(raw) % size:
        raise UserError(f"{path} is not whole records of {size} bytes; fetch it again")
    records = raw.reshape(-1, size)
    targets = records[:, label_bytes - 1].astype(np.int64)
    if int(targets.max()) >= classes:
        raise UserError(f"{path} holds label {int(targets.max())}, beyond {classes} classes; fetch it again")
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return Split(torch.from_numpy(images), torch.from_numpy(targets))
