import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nat2deploy.data.load import load_data
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
    assert (len(data.train), len(data.validation), len(data.test)) == (29, 5, 6)
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
