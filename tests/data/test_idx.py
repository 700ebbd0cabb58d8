import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
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
