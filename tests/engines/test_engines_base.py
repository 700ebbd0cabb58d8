from pathlib import Path

import numpy as np
import pytest

from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError
from nat2deploy.target import Target


class Doubling(Engine):
    def _run(self, images):
        assert images.flags.c_contiguous
        return images * 2

    def _prepare(self, images):
        self.bound = images
        return lambda: None

    def _save(self, path: Path):
        path.write_text("doubling")


def images(*shape):
    return np.ones(shape, dtype=np.float32)


def test_run_hands_contiguous_input_to_the_backend():
    engine = Doubling(Target(), (1, 3, 4, 5))
    flipped = np.arange(60, dtype=np.float32).reshape(1, 3, 5, 4).transpose(0, 1, 3, 2)
    assert np.array_equal(engine.run(flipped), flipped * 2)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (np.ones((1, 3, 4, 5)), "float64"),
        ([[1.0]], "list"),
        (images(3, 4, 5), "3 x 4 x 5"),
        (images(1, 3, 4, 6), "1 x 3 x 4 x 6"),
        (images(2, 3, 4, 5), "batch of 2"),
        (np.float32(1.0) * np.ones((), np.float32), "float32"),
    ],
)
def test_bad_input_is_one_clear_line(given, word):
    engine = Doubling(Target(), (1, 3, 4, 5))
    for call in (engine.run, engine.prepare):
        with pytest.raises(UserError, match=word) as caught:
            call(given)
        assert "\n" not in str(caught.value)


def test_any_batch_lifts_only_the_batch_check():
    engine = Doubling(Target(), (1, 3, 4, 5), any_batch=True)
    assert engine.run(images(7, 3, 4, 5)).shape == (7, 3, 4, 5)
    with pytest.raises(UserError, match="batch of 0"):
        engine.run(images(0, 3, 4, 5))


def test_prepare_binds_its_own_copy():
    engine = Doubling(Target(), (1, 2))
    given = images(1, 2)
    engine.prepare(given)
    given[:] = 9
    assert engine.bound.tolist() == [[1, 1]]


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1,), (1, 0, 4, 4), ()])
def test_shapes_that_no_target_takes(shape):
    with pytest.raises(UserError):
        Doubling(Target(batch=1), shape)


def test_save_replaces_the_file_in_one_step(tmp_path):
    path = tmp_path / "new" / "engine.bin"
    Doubling(Target(), (1, 2)).save(path)
    assert path.read_text() == "doubling"
    assert [one.name for one in path.parent.iterdir()] == ["engine.bin"]
