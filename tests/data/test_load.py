"""``load_data``: splits that do not overlap, stratified, seeded; and its errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import reds, write_classes, write_fashion
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from nat2deploy.data import standard
from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.errors import UserError


def write_images(folder, classes=("cat", "dog"), count=8, size=(20, 14)):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((size[1], size[0], 3), (number * 100 + index, 30, 200), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def test_unsplit_folder_is_split_by_class(tmp_path):
    write_images(tmp_path, count=20)
    data = load_data(f"imagefolder:{tmp_path}", base_resolution=16)
    assert data.labels == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test)) == (28, 6, 6)
    assert data.train.images.shape[1:] == (3, 16, 16) and data.train.images.dtype == torch.uint8
    assert set(data.train.targets.tolist()) == {0, 1}
    pixel = data.train.images[0, :, 8, 8]
    assert pixel[1:].tolist() == [30, 200]
    assert int(pixel[0]) // 100 == int(data.train.targets[0])


def test_given_splits_are_used_as_they_are(tmp_path):
    for part, count in (("train", 10), ("validation", 3), ("test", 2)):
        write_images(tmp_path / part, count=count)
    data = load_data(f"imagefolder:{tmp_path}", base_resolution=8)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 6, 4)


def test_splits_with_other_classes_are_refused(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "val", classes=("cat", "cow"))
    with pytest.raises(UserError, match="other class folders"):
        load_data(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("make", ["missing", "empty", "one", "broken"])
def test_unusable_folders_are_user_errors(tmp_path, make):
    folder = tmp_path / "images"
    if make != "missing":
        folder.mkdir()
    if make == "one":
        write_images(folder, classes=("only",))
    if make == "broken":
        write_images(folder)
        (folder / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        load_data(f"imagefolder:{folder}")
    assert "images" in str(caught.value) and "\n" not in str(caught.value)


def test_a_near_miss_gets_a_hint():
    with pytest.raises(UserError, match="did you mean fashion-mnist"):
        load_data("fashionmnist")
    with pytest.raises(UserError, match="needs a path"):
        load_data("imagefolder")


@given(st.text(max_size=20).filter(lambda text: text.partition(":")[0] not in ("digits", "imagefolder")))
def test_any_text_gives_a_user_error(spec):
    with pytest.raises(UserError):
        load_data(spec if not spec.startswith(("fashion-mnist", "cifar")) else "x" + spec)


def rows(*splits: Split) -> list[bytes]:
    """Every image with its target, as sorted bytes."""
    return sorted(
        image.tobytes() + bytes([target])
        for split in splits
        for image, target in zip(split.images.numpy(), split.targets.tolist(), strict=True)
    )


@pytest.fixture(scope="module")
def loaded_digits() -> ImageData:
    return load_data("digits")


def test_digits_are_divided_without_loss_or_overlap(loaded_digits: ImageData) -> None:
    data = loaded_digits
    assert (len(data.train), len(data.validation), len(data.test)) == (1150, 287, 360)
    raw = load_digits()
    images = np.rint(raw.images * (255 / 16)).astype(np.uint8)[:, None]
    whole = Split(torch.from_numpy(images), torch.from_numpy(raw.target))
    assert rows(data.train, data.validation, data.test) == rows(whole)


def test_digits_are_the_same_where_scikit_learn_keeps_them_elsewhere(loaded_digits, monkeypatch) -> None:
    monkeypatch.setattr(standard, "find_spec", lambda name: None)
    data = load_data("digits")
    assert data.labels == loaded_digits.labels
    for split in ("train", "validation", "test"):
        assert getattr(data, split).fingerprint() == getattr(loaded_digits, split).fingerprint()


def test_digits_are_stratified(loaded_digits: ImageData) -> None:
    raw = np.bincount(load_digits().target) / 1797
    for split in (loaded_digits.train, loaded_digits.validation, loaded_digits.test):
        share = np.bincount(split.targets.numpy(), minlength=10)
        assert np.abs(share - raw * len(split)).max() < 2


def test_what_comes_with_the_splits(loaded_digits: ImageData) -> None:
    data = loaded_digits
    assert data.name == "digits" and data.classes == 10
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx([float(pixels.mean())] * 3, abs=1e-6)
    assert data.std == pytest.approx([float(pixels.std(correction=0))] * 3, abs=1e-6)


@pytest.mark.parametrize(("validation", "count"), [(100, 100), (0.5, 718), (1, 1)])
def test_validation_by_number_and_by_share(validation: int | float, count: int) -> None:
    data = load_data("digits", validation=validation)
    assert len(data.validation) == count and len(data.train) == 1437 - count


def test_max_train_cuts_the_training_split_alone(loaded_digits: ImageData) -> None:
    data = load_data("digits", max_train=100)
    assert np.bincount(data.train.targets.numpy()).tolist() == pytest.approx([10] * 10, abs=1)
    assert set(rows(data.train)) <= set(rows(loaded_digits.train))
    assert data.validation.fingerprint() == loaded_digits.validation.fingerprint()
    assert load_data("digits", max_train=5000).train.images.shape[0] == 1150


def test_small_fashion_mnist(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    data = load_data(f"fashion-mnist:{tmp_path}", validation=20)
    assert np.bincount(data.train.targets.numpy()).tolist() == [4] * 10
    assert np.bincount(data.validation.targets.numpy()).tolist() == [2] * 10
    assert len(set(rows(data.train, data.validation, data.test))) == 80
    with pytest.raises(UserError, match="5000 of 60 images to hold out"):
        load_data(f"fashion-mnist:{tmp_path}")


def test_folder_without_splits_is_divided_70_15_15(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 60, "b": 40}, size=8)
    data = load_data(f"imagefolder:{tmp_path}", base_resolution=8)
    assert [np.bincount(s.targets.numpy()).tolist() for s in (data.train, data.validation, data.test)] == [
        [42, 28],
        [9, 6],
        [9, 6],
    ]
    assert sorted(reds(data.train) + reds(data.validation) + reds(data.test)) == list(range(100))
    assert (data.augment.pad, data.augment.flip) == (1, True)
    assert data.labels == ("a", "b") and data.name == f"imagefolder:{tmp_path}"
    again, other = (load_data(data.name, base_resolution=8, seed=seed) for seed in (0, 1))
    assert reds(again.test) == reds(data.test) != reds(other.test)
    fewer = load_data(data.name, base_resolution=8, validation=5)
    assert len(fewer.validation) == 5 and reds(fewer.test) == reds(data.test)


def test_folder_splits_are_used_as_they_are(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 20, "b": 20})
    write_classes(tmp_path / "test", {"a": 3, "b": 3}, first=100)
    data = load_data(f"imagefolder:{tmp_path}", base_resolution=16)
    assert len(data.validation) == 6 and len(data.train) == 34 and data.augment.pad == 2
    assert reds(data.test) == list(range(100, 106))
    write_classes(tmp_path / "val", {"a": 2, "b": 2}, first=200)
    data = load_data(f"imagefolder:{tmp_path}", base_resolution=16, seed=3, validation=9)
    assert reds(data.train) == list(range(40)) and reds(data.validation) == list(range(200, 204))


def test_a_folder_without_the_word_for_it_is_told_how(tmp_path, monkeypatch):
    write_classes(tmp_path / "digit", {"a": 2, "b": 2})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no data set 'digit'; .* give imagefolder:digit$"):
        load_data("digit")


@pytest.mark.parametrize(
    ("spec", "settings", "said"),
    [
        ("fashion_mnist", {}, "no data set 'fashion_mnist'; did you mean fashion-mnist?"),
        ("imagefoldr:/x", {}, "did you mean imagefolder?"),
        ("zebra", {}, "use one of digits, fashion-mnist, cifar10, cifar100, imagefolder:PATH"),
        ("", {}, "use one of digits"),
        ("imagefolder", {}, "needs a path"),
        ("imagefolder:/no/such/folder", {}, "no image folder at /no/such/folder"),
        ("imagefolder:" + "a" * 400, {}, "no image folder"),
        ("imagefolder:~no-such-user", {}, "no home folder"),
        ("digits:here", {}, "takes no folder"),
        ("digits\n", {}, "cannot be printed"),
        ("cifar10:a\0b", {}, "cannot be printed"),
        ("digits", {"seed": -1}, "seed is -1"),
        ("digits", {"base_resolution": 0}, "base_resolution is 0"),
        ("digits", {"max_train": 0}, "max_train is 0"),
        ("digits", {"validation": 0}, "0 of 1437 images to hold out"),
        ("digits", {"validation": -2}, "-2 of 1437 images to hold out"),
        ("digits", {"validation": 1437}, "1437 of 1437 images to hold out"),
        ("digits", {"validation": 1.0}, "validation is 1.0"),
        ("digits", {"validation": math.nan}, "validation is nan"),
        ("digits", {"validation": math.inf}, "validation is inf"),
        ("digits", {"validation": 1e-9}, "0 of 1437 images to hold out"),
    ],
)
def test_bad_input_gives_one_line(spec: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        load_data(spec, **settings)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_set_says_where_it_was_looked_for(bare_home: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_data("cifar10")
    for place in ("cache/nat2deploy", "home/data"):
        assert f"{bare_home}/{place}/cifar-10-batches-bin" in str(raised.value)
    assert "cifar10:FOLDER" in str(raised.value) and "\n" not in str(raised.value)


def test_a_class_without_an_image_to_train_on_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, dict.fromkeys("abcdefghij", 1))
    with pytest.raises(UserError, match=r"of class '[a-j]' all images are held out for validation and test"):
        load_data(f"imagefolder:{tmp_path}", base_resolution=8)
