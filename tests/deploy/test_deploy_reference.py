from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from nat2deploy.deploy.reference import load_reference, save_reference
from nat2deploy.errors import UserError

IMAGES = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
LOGITS = np.array([[0.5, 1.5], [2.5, -1.0]], dtype=np.float32)


def test_round_trip_and_the_same_bytes(tmp_path: Path) -> None:
    save_reference(tmp_path / "a.npz", IMAGES, {"logits": LOGITS})
    save_reference(tmp_path / "b.npz", IMAGES, {"logits": LOGITS})
    images, logits = load_reference(tmp_path / "a.npz")
    assert torch.equal(images, IMAGES)
    np.testing.assert_array_equal(logits, LOGITS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("images", "logits"),
    [
        (IMAGES.float().numpy(), LOGITS),
        (IMAGES.numpy(), LOGITS.astype(np.float64)),
        (IMAGES.numpy(), LOGITS[:1]),
        (IMAGES.numpy()[:0], LOGITS[:0]),
        (IMAGES.numpy()[0], LOGITS),
        (np.array([{"a": 1}], dtype=object), LOGITS),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, images: np.ndarray, logits: np.ndarray) -> None:
    np.savez(tmp_path / "x.npz", images=images, logits=logits)
    with pytest.raises(UserError, match="export the bundle again"):
        load_reference(tmp_path / "x.npz")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("trapped"),)  # type: ignore[return-value]


def test_no_pickle_is_ever_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError):
        load_reference(tmp_path / "x.npz")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\3\4junk"])
def test_damage_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.npz") as caught:
        load_reference(tmp_path / "x.npz")
    assert len(str(caught.value).splitlines()) == 1


def test_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.npz"):
        load_reference(tmp_path / "x.npz")
