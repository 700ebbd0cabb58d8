"""Image folders made of small PNGs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import noise, reds, write_classes
from PIL import Image

from nat2deploy.data import folder
from nat2deploy.data.folder import read_image_folder
from nat2deploy.data.preprocess import resize
from nat2deploy.deploy.runner.images import decode
from nat2deploy.errors import UserError


def test_class_folders_at_once(tmp_path: Path) -> None:
    write_classes(tmp_path, {"dog": 2, "cat": 3})
    labels, train, validation, test = read_image_folder(tmp_path, 8)
    assert labels == ("cat", "dog")
    assert train.images.shape == (5, 3, 8, 8) and train.images.dtype == torch.uint8
    assert train.targets.tolist() == [0, 0, 0, 1, 1] and train.targets.dtype == torch.int64
    assert train.images[:, :, 0, 0].tolist() == [[red, 7, 200] for red in (2, 3, 4, 0, 1)]
    assert validation is None and test is None


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Train", "Validation", "Test"),
        ("TRAINING", "dev", "testing"),
    ],
    ids=lambda names: names[1],
)
def test_splits_of_their_own(tmp_path: Path, names: tuple[str, str, str]) -> None:
    write_classes(tmp_path / names[0], {"a": 3, "b": 2})
    write_classes(tmp_path / names[1], {"a": 1, "b": 1}, first=20)
    write_classes(tmp_path / names[2], {"a": 1, "b": 2}, first=40)
    _, train, validation, test = read_image_folder(tmp_path, 8)
    assert validation is not None and test is not None
    assert (reds(train), reds(validation), reds(test)) == ([0, 1, 2, 3, 4], [20, 21], [40, 41, 42])


def test_either_split_may_be_absent(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 1, "b": 1})
    assert read_image_folder(tmp_path, 8)[2:] == (None, None)
    write_classes(tmp_path / "test", {"a": 1, "b": 1}, first=9)
    _, _, validation, test = read_image_folder(tmp_path, 8)
    assert validation is None and test is not None and reds(test) == [9, 10]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(tmp_path / "a" / "000.png")
    _, train, _, _ = read_image_folder(tmp_path, 8)
    assert train.images[0].shape == (3, 8, 8)
    assert bool((train.images[0] == 255).all())


@pytest.mark.parametrize("size", [(48, 16), (16, 48)])
def test_keeps_the_centre_square(tmp_path: Path, size: tuple[int, int]) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    image = Image.new("RGB", size, (255, 0, 0))
    left, top = (size[0] - 16) // 2, (size[1] - 16) // 2
    image.paste((0, 255, 0), (left, top, left + 16, top + 16))
    image.save(tmp_path / "a" / "000.png")
    _, train, _, _ = read_image_folder(tmp_path, 8)
    assert train.images[0][:, 1:-1, 1:-1].float().mean(dim=(1, 2)).tolist() == [0, 255, 0]


def test_shrinking_averages_instead_of_picking(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    stripes = Image.new("L", (64, 64))
    stripes.putdata([255 * (x % 2) for _ in range(64) for x in range(64)])
    stripes.save(tmp_path / "a" / "000.png")
    _, train, _, _ = read_image_folder(tmp_path, 8)
    # Without antialiasing the stripes would stay black or white.
    assert (train.images[0].float() - 127.5).abs().max() < 20


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no image folder at {tmp_path}/absent"):
        read_image_folder(tmp_path / "absent", 8)
    with pytest.raises(UserError, match=r"holds no class folders with images; put them in .*/CLASS/\*\.png"):
        read_image_folder(tmp_path, 8)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no image folder"):
        read_image_folder(tmp_path / "file", 8)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=rf"class folder {tmp_path}/checkpoints holds no images"):
        read_image_folder(tmp_path, 8)


def test_one_class(tmp_path: Path) -> None:
    write_classes(tmp_path, {"only": 2})
    with pytest.raises(UserError, match="holds one class, 'only'"):
        read_image_folder(tmp_path, 8)


@pytest.mark.parametrize("name", ["val", "validation", "Test"])
def test_splits_without_train_are_not_taken_for_classes(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path / name, {"a": 1, "b": 1})
    write_classes(tmp_path / "exercise" / "a", {"x": 1})
    with pytest.raises(UserError, match=f"has a folder {name} but no folder train"):
        read_image_folder(tmp_path, 8)


@pytest.mark.parametrize("names", [("train", "training"), ("val", "dev"), ("Test", "test")])
def test_two_folders_of_one_split(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in ("train", *names):
        write_classes(tmp_path / name, {"a": 1, "b": 1})
    with pytest.raises(UserError, match=r"has folders (\w+) and (\w+), both for \w+; keep one"):
        read_image_folder(tmp_path, 8)


@pytest.mark.parametrize("name", ["1.gif", "1.HEIC", "1.jfif", "1.pnm"])
def test_images_of_kinds_that_are_not_read_are_not_passed_over(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    for place in (tmp_path / "a" / "notes.txt", tmp_path / "a" / f".{name}"):
        place.write_bytes(b"x")
    assert len(read_image_folder(tmp_path, 8)[1]) == 2
    for label in "ab":
        (tmp_path / label / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"image .*/a/{name} \(and 1 more of such kinds\): PNG, .* are read"):
        read_image_folder(tmp_path, 8)


def test_splits_whose_classes_differ(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 1, "b": 1})
    write_classes(tmp_path / "test", {"a": 1, "c": 1})
    with pytest.raises(
        UserError, match=r"/test has other class folders than .*/train: 'b' is in one of them"
    ):
        read_image_folder(tmp_path, 8)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1}, size=40)
    broken = tmp_path / "b" / "001.png"
    whole = broken.read_bytes()
    for data in (b"", b"no image", whole[:20], whole[:50], whole[:16] + b"\xff" * 8 + whole[24:]):
        broken.write_bytes(data)
        with pytest.raises(UserError, match=rf"image {broken} cannot be read \(.+\); mend or remove it"):
            read_image_folder(tmp_path, 8)


def test_an_image_that_the_decoder_refuses_for_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1}, size=40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's error for it is no OSError
    with pytest.raises(UserError, match=r"image .*/a/000\.png cannot be read \(Image size .* exceeds limit"):
        read_image_folder(tmp_path, 8)


@pytest.mark.parametrize("suffix", ["png", "pgm", "tif"])
def test_grey_of_16_bits_is_what_a_bundles_runner_sees(tmp_path: Path, suffix: str) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    file = tmp_path / "a" / f"000.{suffix}"
    (tmp_path / "a" / "000.png").unlink()
    Image.fromarray(ramp).save(file)
    _, train, _, _ = read_image_folder(tmp_path, 16)
    seen = train.images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(seen, decode(file.read_bytes()))
    assert len(np.unique(seen)) > 200


def test_so_it_is_where_the_high_byte_comes_first(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    ramp = np.linspace(0, 65535, 256).astype(">u2").reshape(16, 16)
    (tmp_path / "a" / "000.png").unlink()
    Image.frombytes("I;16B", (16, 16), ramp.tobytes()).save(tmp_path / "a" / "000.tif")
    seen = read_image_folder(tmp_path, 16)[1].images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(seen[..., 0], ramp >> 8)
    assert np.array_equal(seen, decode((tmp_path / "a" / "000.tif").read_bytes()))


def test_hidden_files_and_folders_do_not_count(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 1})
    write_classes(tmp_path, {".ipynb_checkpoints": 1, "a/.cache": 1})
    (tmp_path / "b" / "._002.png").write_bytes(b"macOS")
    labels, train, _, _ = read_image_folder(tmp_path, 8)
    assert labels == ("a", "b") and train.targets.tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", [b"new\nline", b"caf\xe9", b" ", "para\u2029graph".encode()])
def test_a_class_name_that_no_bundle_can_hold_is_refused_at_once(tmp_path: Path, name: bytes) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "b").rename(tmp_path / os.fsdecode(name))
    with pytest.raises(UserError, match="has a name that is no printable line; rename it") as said:
        read_image_folder(tmp_path, 8)
    assert str(said.value).isprintable()


def test_class_names_of_any_script_are_taken(tmp_path: Path) -> None:
    names = ["<b>", "\u00fcn\u00ef c", "\u06af\u0644\u200c\u0647\u0627"]
    write_classes(tmp_path, dict.fromkeys(names, 1))
    assert read_image_folder(tmp_path, 8)[0] == tuple(sorted(names))


def test_a_link_to_a_folder_that_is_read_anyway_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {"a": 2, "b": 2})
    (tmp_path / "images" / "a" / "again").symlink_to(".")
    with pytest.raises(UserError, match=r"a/again is .*a once more, by a link; remove the link"):
        read_image_folder(tmp_path / "images", 8)
    (tmp_path / "images" / "a" / "again").unlink()
    write_classes(tmp_path, {"elsewhere": 1}, first=9)
    (tmp_path / "images" / "c").symlink_to(tmp_path / "elsewhere")
    assert read_image_folder(tmp_path / "images", 8)[0] == ("a", "b", "c")


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (101, 64), (66, 99)])
def test_pixels_are_those_of_the_one_path_for_deployment(tmp_path: Path, size: tuple[int, int]) -> None:
    """To a level or two: Pillow rounds where PyTorch does not. A crop that is a pixel off is off by dozens."""
    write_classes(tmp_path, {"a": 1, "b": 1})
    pixels = noise(3, size[1] // 6 + 1, size[0] // 6 + 1, 3)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a" / "000.png")
    whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    for resolution in (8, 64):
        found = read_image_folder(tmp_path, resolution)[1].images[0].float()
        assert (found - resize(whole, resolution)[0]).abs().max() < 2.5


@pytest.mark.parametrize("other", ["val", "test"])
def test_an_image_in_two_splits_by_a_link_is_refused(tmp_path: Path, other: str) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    (tmp_path / other).symlink_to("train")
    with pytest.raises(
        UserError, match=rf"image .*/{other}/a/000.png is .*/train/a/000.png once more, by a link"
    ):
        read_image_folder(tmp_path, 8)
    (tmp_path / other).unlink()
    write_classes(tmp_path / other, {"a": 1, "b": 1}, first=9)
    assert read_image_folder(tmp_path, 8)[0] == ("a", "b")
    (tmp_path / other / "b" / "link.png").symlink_to(tmp_path / "train" / "b" / "003.png")
    with pytest.raises(UserError, match=rf"image .*/{other}/b/link.png is .*/train/b/003.png once more"):
        read_image_folder(tmp_path, 8)


def test_a_class_that_is_called_train_is_told(tmp_path: Path) -> None:
    write_classes(tmp_path, {"bus": 1, "car": 1, "train": 1})
    with pytest.raises(
        UserError, match=r"/train holds no class folders .*; if it is a class and no split, rename it"
    ):
        read_image_folder(tmp_path, 8)


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 40_000)])
def test_values_of_32_bits_are_refused(tmp_path: Path, mode: str, value: float) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    Image.new(mode, (8, 8), value).save(tmp_path / "a" / "deep.tiff")
    with pytest.raises(UserError, match=r"deep\.tiff cannot be read \(its values are of 32 bits; convert it"):
        read_image_folder(tmp_path, 8)


def test_more_than_memory_holds_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path, {"a": 1, "b": 1})
    monkeypatch.setattr(folder, "memory_bytes", lambda: 2 * 2 * 3 * 64)
    assert len(read_image_folder(tmp_path, 8)[1]) == 2
    with pytest.raises(
        UserError, match="to read 2 images of 9 pixels takes 0 GB of memory, this machine has"
    ):
        read_image_folder(tmp_path, 9)
