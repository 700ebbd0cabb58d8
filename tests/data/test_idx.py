"""The idx reader, on files of our own: right, damaged and random."""

from __future__ import annotations

import contextlib
import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from data_helpers import noise
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nat2deploy.data.idx import read_idx
from nat2deploy.errors import UserError


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_reads_what_was_written(tmp_path, suffix, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / f"images-idx{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(array)) if suffix else idx_bytes(array))
    found = read_idx(path)
    assert np.array_equal(found.numpy(), array)


def test_missing_truncated_and_foreign_files_are_user_errors(tmp_path):
    whole = idx_bytes(np.zeros((4, 2), np.uint8))
    for name, data in {
        "short": whole[:-1],
        "long": whole + b"x",
        "header": whole[:6],
        "float": b"\0\0\x0d" + whole[3:],
        "damaged.gz": gzip.compress(whole)[:-4],
        "plain.gz": whole,
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UserError, match=name):
            read_idx(path)
    with pytest.raises(UserError, match="no idx file"):
        read_idx(tmp_path / "nowhere")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64), st.sampled_from(["a", "a.gz"]), st.booleans())
def test_any_bytes_give_a_tensor_or_a_user_error(tmp_path, data, name, head):
    path = tmp_path / name
    path.write_bytes((b"\0\0\x08\x01" if head else b"") + data)
    try:
        assert read_idx(path).ndim in (1, 2, 3, 4)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples of a property."""
    return tmp_path_factory.mktemp("idx") / "file"


def test_the_tensor_can_be_written_to(scratch: Path) -> None:
    scratch.write_bytes(idx_bytes(noise(1, 2, 3)))
    found = read_idx(scratch)
    found[0, 0] = 9
    assert found[0, 0] == 9


def fails_clearly(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with contextlib.suppress(UserError):  # any other error fails the test
        assert read_idx(path).numel() >= 1


@given(st.binary(max_size=80))
@example(b"\x1f\x8b")
@example(b"\x1f\x8b\x08\x04")
def test_random_bytes_give_nothing_but_the_clear_error(scratch: Path, data: bytes) -> None:
    fails_clearly(scratch, data)


@given(
    kind=st.integers(0, 255),
    axes=st.integers(0, 6),
    sizes=st.lists(st.sampled_from([0, 1, 2, 3, 255, 2**16, 2**31, 2**32 - 1]), max_size=6),
    body=st.binary(max_size=40),
    packed=st.booleans(),
)
@example(kind=8, axes=4, sizes=[2**32 - 1, 2**32 - 1, 0, 5], body=b"", packed=False)
@example(kind=8, axes=2, sizes=[2, 3], body=b"123456", packed=True)
def test_random_headers_give_nothing_but_the_clear_error(
    scratch: Path, kind: int, axes: int, sizes: list[int], body: bytes, packed: bool
) -> None:
    data = bytes([0, 0, kind, axes]) + struct.pack(f">{len(sizes)}I", *sizes) + body
    fails_clearly(scratch, gzip.compress(data) if packed else data)


@given(at=st.integers(0), flipped=st.integers(1, 255))
def test_a_damaged_gzip_gives_nothing_but_the_clear_error(scratch: Path, at: int, flipped: int) -> None:
    data = bytearray(gzip.compress(idx_bytes(noise(2, 3, 4, 4))))
    data[at % len(data)] ^= flipped
    fails_clearly(scratch, bytes(data))


@pytest.mark.parametrize("packed", [False, True])
def test_every_cut_is_noticed(scratch: Path, packed: bool) -> None:
    whole = idx_bytes(noise(3, 2, 3, 3))
    for data in (whole, gzip.compress(whole)) if packed else (whole,):
        for length in range(len(data)):
            # A gzip cut within its closing checksum still holds all pixels, yet its damage must be told.
            scratch.write_bytes(data[:length])
            with pytest.raises(UserError, match="fetch it again"):
                read_idx(scratch)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (idx_bytes(noise(1, 4)) + b"x", "holds more bytes where its header says 4"),
        (idx_bytes(noise(1, 4))[:-1], "holds 3 bytes where its header says 4"),
        (b"\0\0\x08\x02\0\0\0\x02", "ends within its header"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "no idx file of bytes"),
        (b"\0\0\x08\x05" + bytes(20), "no idx file of bytes"),
        (b"\0\0\x08\x01\0\0\0\0", "announces 0 bytes"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "announces 18446744065119617025 bytes"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said) as raised:
        read_idx(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no idx file at .*; check the folder"):
        read_idx(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path)


def test_unpacks_no_more_than_the_header_announces(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x10" + bytes(60_000_000), 1))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="holds more"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_asks_for_no_memory_that_only_the_header_claims(tmp_path: Path) -> None:
    path = tmp_path / "liar"
    path.write_bytes(b"\0\0\x08\x01\x3f\xff\xff\xff" + b"few")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="holds 3 bytes"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_gzip_is_known_without_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(gzip.compress(idx_bytes(noise(4, 5))))
    np.testing.assert_array_equal(read_idx(path).numpy(), noise(4, 5))


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_too_many_is_noticed_at_any_size(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "file"
    for size in (2**20 - 1, 2**20, 2**20 + 1):  # around the size of one read
        data = idx_bytes(np.zeros(size, np.uint8))
        path.write_bytes(gzip.compress(data, 1) if packed else data)
        assert read_idx(path).shape == (size,)
        path.write_bytes(gzip.compress(data + b"x", 1) if packed else data + b"x")
        with pytest.raises(UserError, match="holds more bytes"):
            read_idx(path)
