"""Batches: complete, deterministic, and resumable at any batch."""

from __future__ import annotations

from typing import Any

import data_helpers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.batches import batch_count, batches
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.data.sets import Normalisation, Split

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
MOVING = Augmentation(pad=1, flip=True)


def numbered(count: int, size: int = 4) -> Split:
    images = (
        torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, size, size).contiguous()
    )
    return Split(images, torch.arange(count))


def listed(split, **options):
    options = {"batch_size": 8, "resolution": 4, "normalisation": PLAIN, "shuffle_seed": 3} | options
    return list(batches(split, **options))


def test_each_image_comes_once_with_its_target():
    seen = listed(numbered(20))
    targets = torch.cat([t for _, t in seen])
    assert sorted(targets.tolist()) == list(range(20)) and targets.tolist() != list(range(20))
    for images, labels in seen:
        assert images.shape[1:] == (3, 4, 4) and images.dtype == torch.float32
        assert torch.allclose(images[:, 1, 2, 2] * 255, labels.float())
    assert [len(t) for _, t in seen] == [8, 8, 4]
    assert len(listed(numbered(20), drop_last=True)) == 2 == batch_count(numbered(20), 8, drop_last=True)


def test_beginning_in_the_middle_gives_the_same_batches():
    split = numbered(40, 8)
    augment = Augmentation(pad=2, flip=True)
    whole = listed(split, augment=augment)
    rest = listed(split, augment=augment, start=3)
    assert len(rest) == len(whole) - 3
    for (a, b), (c, d) in zip(whole[3:], rest, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_a_seed_decides_order_and_no_seed_keeps_it():
    same, other = listed(numbered(20)), listed(numbered(20), shuffle_seed=4)
    assert torch.equal(same[0][1], listed(numbered(20))[0][1])
    assert not torch.equal(same[0][1], other[0][1])
    assert torch.cat([t for _, t in listed(numbered(20), shuffle_seed=None)]).tolist() == list(range(20))


def test_resolution_may_change_with_each_batch():
    sizes = iter([4, 8, 6])
    seen = listed(numbered(20), resolution=lambda: next(sizes))
    assert [images.shape[-1] for images, _ in seen] == [4, 8, 6]


def test_normalisation_is_applied():
    ((images, _),) = listed(numbered(2), normalisation=Normalisation((0.5, 0.0, 0.0), (0.25, 1.0, 1.0)))
    assert torch.allclose(images[:, 0] * 0.25 + 0.5, images[:, 1])


def test_augmentation_shifts_within_its_pad_and_flips_half():
    images = torch.zeros(400, 1, 9, 9)
    images[:, 0, 4, 2] = 1.0
    moved = Augmentation(pad=1, flip=True).apply(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape and torch.all(moved.sum((1, 2, 3)) == 1)
    _, _, rows, columns = torch.nonzero(moved, as_tuple=True)
    assert set(rows.tolist()) == {3, 4, 5}
    assert set(columns.tolist()) == {1, 2, 3, 5, 6, 7}
    assert 150 < int((columns > 4).sum()) < 250
    still = Augmentation(pad=0, flip=False).apply(images, torch.Generator().manual_seed(0))
    assert torch.equal(still, images)


def collect(split: Split, **changes: Any) -> list[tuple[Tensor, Tensor]]:
    settings = {
        "batch_size": 8,
        "resolution": 6,
        "normalisation": PLAIN,
        "shuffle_seed": 0,
        **changes,
    }
    return list(batches(split, **settings))


def same(left: list[tuple[Tensor, Tensor]], right: list[tuple[Tensor, Tensor]]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [None, MOVING])
def test_shapes_and_types(channels: int, augment: Augmentation | None) -> None:
    for images, targets in collect(
        data_helpers.numbered(16, channels=channels), resolution=9, augment=augment
    ):
        assert images.shape == (8, 3, 9, 9) and images.dtype == torch.float32
        assert targets.shape == (8,) and targets.dtype == torch.int64


def test_the_seed_decides_order_and_augmentation() -> None:
    split = data_helpers.numbered(40)
    state = torch.get_rng_state()
    first = collect(split, augment=MOVING)
    assert same(first, collect(split, augment=MOVING))
    assert not same(first, collect(split, augment=MOVING, shuffle_seed=1))
    assert not same(first, collect(split))
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_are_augmented_differently() -> None:
    image = data_helpers.numbered(1).images
    split = Split(image.expand(16, -1, -1, -1), torch.zeros(16, dtype=torch.int64))
    (first, _), (second, _) = collect(split, augment=MOVING)
    assert not torch.equal(first, second)


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    start=st.integers(0, 12),
    seed=st.one_of(st.none(), st.integers(0, 2**50)),
    drop_last=st.booleans(),
)
def test_starting_at_a_batch_is_the_tail_of_the_whole(
    count: int, batch_size: int, start: int, seed: int | None, drop_last: bool
) -> None:
    split = data_helpers.numbered(count)
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "shuffle_seed": seed,
        "augment": MOVING,
        "drop_last": drop_last,
    }
    whole = collect(split, **settings)
    assert len(whole) == batch_count(split, batch_size, drop_last=drop_last)
    assert same(collect(split, start=start, **settings), whole[start:])


@pytest.mark.parametrize(
    ("count", "size", "drop_last", "expected"),
    [
        (30, 8, False, 4),
        (30, 8, True, 3),
        (32, 8, False, 4),
        (32, 8, True, 4),
        (5, 8, True, 0),
        (5, 8, False, 1),
    ],
)
def test_batch_count(count: int, size: int, drop_last: bool, expected: int) -> None:
    assert batch_count(data_helpers.numbered(count), size, drop_last=drop_last) == expected


def test_the_resolution_is_asked_once_before_each_batch_that_comes() -> None:
    sizes = iter([5, 7, 9])
    found = collect(data_helpers.numbered(32), resolution=lambda: next(sizes), start=1)
    assert [images.shape[-1] for images, _ in found] == [5, 7, 9]
    assert next(sizes, None) is None


def test_pixels_are_those_of_the_preprocessing_that_is_deployed() -> None:
    split = data_helpers.numbered(8, channels=3)
    normalisation = Normalisation((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    ((images, _),) = collect(split, shuffle_seed=None, resolution=11, normalisation=normalisation)
    path = Preprocessing(resolution=11, mean=normalisation.mean, std=normalisation.std)
    assert torch.equal(images, path.apply(split.images))


def test_two_passes_side_by_side_do_not_disturb_each_other() -> None:
    split = data_helpers.numbered(32)
    settings: dict[str, Any] = {"batch_size": 8, "resolution": 6, "normalisation": PLAIN, "augment": MOVING}
    pairs = list(
        zip(
            batches(split, shuffle_seed=1, **settings),
            batches(split, shuffle_seed=2, **settings),
            strict=True,
        )
    )
    assert same([left for left, _ in pairs], collect(split, shuffle_seed=1, augment=MOVING))
    assert same([right for _, right in pairs], collect(split, shuffle_seed=2, augment=MOVING))
