"""The readers of the standard data sets, on files of our own."""

from __future__ import annotations

import struct
from pathlib import Path

import data_helpers
import numpy as np
import pytest
import torch
from data_helpers import idx_bytes, noise

from nat2deploy.data.load import load_data
from nat2deploy.data.places import candidates
from nat2deploy.data.standard import cifar10, cifar100, digits, fashion_mnist
from nat2deploy.errors import UserError


def overlap(a, b) -> int:
    return len({x.numpy().tobytes() for x in a.images} & {x.numpy().tobytes() for x in b.images})


def write_fashion(folder, train=60, test=20):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + struct.pack(">I", count) + labels.tobytes()
        )


def test_digits_have_three_separate_splits_and_one_test_split():
    first, second = load_data("digits", seed=0), load_data("digits", seed=1)
    assert (len(first.train), len(first.validation), len(first.test)) == (1150, 287, 360)
    assert first.classes == 10 and first.labels[3] == "3"
    assert torch.equal(first.test.images, second.test.images)
    assert not torch.equal(first.validation.images, second.validation.images)
    assert overlap(first.train, first.test) == overlap(first.train, first.validation) == 0
    assert first.fingerprint() == load_data("digits", seed=0).fingerprint() != second.fingerprint()


def test_digits_take_no_folder():
    with pytest.raises(UserError, match="embedded"):
        load_data("digits:somewhere")


def test_validation_and_training_sizes_can_be_given():
    data = load_data("digits", validation=100, max_train=200)
    assert (len(data.train), len(data.validation)) == (200, 100)
    assert torch.bincount(data.train.targets).min() >= 15
    with pytest.raises(UserError, match="to hold out"):
        load_data("digits", validation=5000)


def test_fashion_mnist_from_a_folder(tmp_path):
    write_fashion(tmp_path)
    data = load_data(f"fashion-mnist:{tmp_path}", validation=10)
    assert (len(data.train), len(data.validation), len(data.test)) == (50, 10, 20)
    assert data.labels[9] == "Ankle boot" and data.train.images.shape[1:] == (1, 28, 28)
    assert torch.bincount(data.validation.targets).tolist() == [1] * 10


def test_fashion_mnist_is_found_in_torchvisions_cache(tmp_path, monkeypatch):
    write_fashion(tmp_path / "FashionMNIST" / "raw")
    monkeypatch.setenv("NAT2DEPLOY_DATA", str(tmp_path))
    assert len(load_data("fashion-mnist", validation=10).test) == 20


def test_fashion_mnist_that_does_not_belong_together_is_refused(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes((tmp_path / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(UserError, match="belong together"):
        load_data(f"fashion-mnist:{tmp_path}")


@pytest.mark.parametrize("spec", ["fashion-mnist", "cifar10", "cifar100"])
def test_a_missing_set_says_where_it_looked_and_how_to_get_it(tmp_path, spec):
    with pytest.raises(UserError) as caught:
        load_data(f"{spec}:{tmp_path}")
    assert str(tmp_path) in str(caught.value) and "give" in str(caught.value)


def test_roots_are_tried_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("NAT2DEPLOY_DATA", str(tmp_path))
    places = candidates(None, "x", system=("/last",))
    assert places[0] == tmp_path / "x" and str(places[-1]) == "/last"


def write_cifar(folder, names, label_bytes, records=20):
    rng = np.random.default_rng(0)
    for name in names:
        raw = rng.integers(0, 256, (records, label_bytes + 3072)).astype(np.uint8)
        raw[:, :label_bytes] = (np.arange(records) % 10)[:, None]
        (folder / name).write_bytes(raw.tobytes())


def test_cifar10_binary(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    write_cifar(folder, [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"], 1)
    data = load_data(f"cifar10:{tmp_path}", validation=20)
    assert (len(data.train), len(data.validation), len(data.test)) == (80, 20, 20)
    raw = np.frombuffer((folder / "test_batch.bin").read_bytes(), np.uint8).reshape(20, -1)
    assert np.array_equal(data.test.images[7].numpy().ravel(), raw[7, 1:])
    assert data.test.targets.tolist() == raw[:, 0].tolist()
    (folder / "test_batch.bin").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="whole records"):
        load_data(f"cifar10:{tmp_path}")


def test_cifar100_uses_the_fine_labels(tmp_path):
    write_cifar(tmp_path, ["train.bin", "test.bin"], 2)
    raw = np.frombuffer((tmp_path / "test.bin").read_bytes(), np.uint8).reshape(20, -1).copy()
    raw[:, 0], raw[:, 1] = 9, np.arange(20) + 70
    (tmp_path / "test.bin").write_bytes(raw.tobytes())
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"class{i}" for i in range(100)))
    data = load_data(f"cifar100:{tmp_path}", validation=10)
    assert data.classes == 100 and data.test.targets.tolist() == list(range(70, 90))


def test_digits_use_the_whole_range_and_keep_their_test_split() -> None:
    labels, train, test, augment = digits(None)
    assert labels == tuple("0123456789")
    assert train.images.shape == (1437, 1, 8, 8) and test.images.shape == (360, 1, 8, 8)
    assert train.images.dtype == torch.uint8 and train.targets.dtype == torch.int64
    assert int(train.images.max()) == 255 and int(train.images.min()) == 0
    assert digits(None)[2].fingerprint() == test.fingerprint()
    assert (augment.pad, augment.flip) == (1, False)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inside", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_of_a_given_folder(tmp_path: Path, packed: bool, inside: str) -> None:
    data_helpers.write_fashion(tmp_path / inside, packed=packed)
    labels, train, test, augment = fashion_mnist(str(tmp_path))
    assert labels[0] == "T-shirt/top" and labels[9] == "Ankle boot" and len(set(labels)) == 10
    np.testing.assert_array_equal(train.images[:, 0].numpy(), noise(0, 60, 28, 28))
    np.testing.assert_array_equal(test.images[:, 0].numpy(), noise(1, 20, 28, 28))
    assert train.targets.tolist() == [n % 10 for n in range(60)]
    assert train.targets.dtype == torch.int64
    assert (augment.pad, augment.flip) == (2, True)


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        fashion_mnist(str(tmp_path))
    message = str(raised.value)
    assert f"looked in {tmp_path}, {tmp_path}/fashion-mnist, {tmp_path}/FashionMNIST/raw" in message
    assert "dataset-fashion-mnist" in message and "download=True" in message and "\n" not in message


def test_fashion_mnist_files_that_do_not_fit(tmp_path: Path) -> None:
    data_helpers.write_fashion(tmp_path, packed=False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(59, np.uint8)))
    with pytest.raises(UserError, match="do not belong together"):
        fashion_mnist(str(tmp_path))
    labels.write_bytes(idx_bytes(np.full(60, 10, np.uint8)))
    with pytest.raises(UserError, match="label 10, beyond 10 classes"):
        fashion_mnist(str(tmp_path))
    labels.write_bytes(idx_bytes(np.zeros((60, 1), np.uint8)))
    with pytest.raises(UserError, match="do not belong together"):
        fashion_mnist(str(tmp_path))


def small_cifar10(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        data_helpers.write_cifar(
            folder / f"{name}.bin", [[number], [9 - number]], noise(number, 2, 3, 32, 32)
        )
    return folder


def test_cifar10(tmp_path: Path) -> None:
    folder = small_cifar10(tmp_path)
    for place in (tmp_path, folder):
        labels, train, test, augment = cifar10(str(place))
        assert labels[0] == "airplane" and labels[9] == "truck"
        assert train.targets.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5] and test.targets.tolist() == [5, 4]
        expected = np.concatenate([noise(number, 2, 3, 32, 32) for number in range(5)])
        np.testing.assert_array_equal(train.images.numpy(), expected)
        np.testing.assert_array_equal(test.images.numpy(), noise(5, 2, 3, 32, 32))
        assert (augment.pad, augment.flip) == (4, True)


def test_damaged_cifar10(tmp_path: Path) -> None:
    broken = small_cifar10(tmp_path) / "data_batch_3.bin"
    whole = broken.read_bytes()
    for data in (whole[:-1], b""):
        broken.write_bytes(data)
        with pytest.raises(UserError, match=r"data_batch_3\.bin is not whole records of 3073 bytes"):
            cifar10(str(tmp_path))
    broken.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(UserError, match="label 10, beyond 10 classes"):
        cifar10(str(tmp_path))
    broken.unlink()
    with pytest.raises(UserError, match=r"cifar-10-batches-bin lacks data_batch_3\.bin\).*pickle"):
        cifar10(str(tmp_path))


def test_cifar100_counts_the_fine_label(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    data_helpers.write_cifar(folder / "train.bin", [[19, 99], [0, 4]], noise(1, 2, 3, 32, 32))
    data_helpers.write_cifar(folder / "test.bin", [[3, 50]], noise(2, 1, 3, 32, 32))
    names = [f"name_{number}" for number in range(100)]
    (folder / "fine_label_names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    labels, train, test, _ = cifar100(str(tmp_path))
    assert labels == tuple(names)
    assert train.targets.tolist() == [99, 4] and test.targets.tolist() == [50]
    np.testing.assert_array_equal(train.images.numpy(), noise(1, 2, 3, 32, 32))
    (folder / "fine_label_names.txt").write_text("apple\n", encoding="utf-8")
    with pytest.raises(UserError, match="1 names instead of 100"):
        cifar100(str(tmp_path))
    (folder / "fine_label_names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot read list of label names"):
        cifar100(str(tmp_path))
