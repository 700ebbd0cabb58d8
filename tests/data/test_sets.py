"""Splits in memory: stratified draws, fingerprints and channel statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_helpers import noise, numbered
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.sets import ImageData, Normalisation, Split, channel_statistics, stratified
from nat2deploy.errors import UserError


def test_stratified_keeps_shares_and_separates():
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    inside, outside = stratified(targets, 20, seed=1)
    assert torch.bincount(targets[inside]).tolist() == [12, 6, 2]
    assert sorted(torch.cat([inside, outside]).tolist()) == list(range(100))
    again, _ = stratified(targets, 20, seed=1)
    other, _ = stratified(targets, 20, seed=2)
    assert torch.equal(inside, again) and not torch.equal(inside, other)


def test_stratified_is_in_random_order_so_that_batches_mix_classes():
    inside, _ = stratified(torch.tensor([0] * 50 + [1] * 50), 40, seed=0)
    labels = (inside >= 50).long()
    assert 5 < int(labels[:20].sum()) < 15


def test_rounded_shares_sum_to_the_count():
    inside, _ = stratified(torch.arange(7) % 3, 5, seed=0)
    assert len(inside) == 5 == len(set(inside.tolist()))


def test_subset_never_asks_for_more_than_there_is():
    split = Split(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    assert len(split.subset(10, 0)) == 4


def test_fingerprint_sees_a_pixel_and_a_label():
    images, targets = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1])
    base = Split(images, targets).fingerprint()
    changed = images.clone()
    changed[0, 0, 0, 0] = 1
    assert Split(changed, targets).fingerprint() != base
    assert Split(images, targets.flip(0)).fingerprint() != base
    assert Split(images.clone(), targets.clone()).fingerprint() == base


def test_statistics_agree_with_torch_and_repeat_for_grey():
    images = torch.randint(0, 256, (20, 3, 5, 5), generator=torch.Generator().manual_seed(0)).byte()
    found = channel_statistics(images)
    pixels = images.double() / 255
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert found.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-6)
    grey = channel_statistics(images[:, :1])
    assert len(set(grey.mean)) == 1 and grey.mean[0] == found.mean[0]


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**40),
)
def test_a_stratified_draw(labels: list[int], share: float, seed: int) -> None:
    targets = torch.tensor(labels)
    count = round(share * len(labels))
    inside, outside = stratified(targets, count, seed)
    assert inside.dtype == outside.dtype == torch.int64
    assert len(inside) == count
    assert sorted(inside.tolist() + outside.tolist()) == list(range(len(labels)))
    drawn = torch.bincount(targets[inside], minlength=6)
    exact = torch.bincount(targets, minlength=6) * count / len(labels)
    assert bool(((drawn - exact).abs() < 1).all())
    again = stratified(targets, count, seed)
    assert torch.equal(again[0], inside) and torch.equal(again[1], outside)


@pytest.mark.parametrize("count", [-1, 5])
def test_a_count_out_of_range(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} images asked for, of 4"):
        stratified(torch.zeros(4, dtype=torch.int64), count, 0)


def test_subset() -> None:
    split = numbered(80)
    part = split.subset(20, 3)
    assert len(part) == 20 and torch.bincount(part.targets).tolist() == [5] * 4
    pairs = {(image.numpy().tobytes(), int(target)) for image, target in zip(*contents(split), strict=True)}
    assert {(i.numpy().tobytes(), int(t)) for i, t in zip(*contents(part), strict=True)} <= pairs
    assert part.fingerprint() == split.subset(20, 3).fingerprint() != split.subset(20, 4).fingerprint()
    assert len(split.subset(1000, 0)) == 80


def contents(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.images, split.targets


def test_the_fingerprint_is_of_pixels_targets_and_shape() -> None:
    split = numbered(8)
    same = Split(split.images.clone(), split.targets.clone())
    assert same.fingerprint() == split.fingerprint() and len(split.fingerprint()) == 64
    pixel, target = split.images.clone(), split.targets.clone()
    pixel[3, 0, 2, 2] ^= 1
    target[0] = 3
    others = [
        Split(pixel, split.targets),
        Split(split.images, target),
        Split(split.images.reshape(8, 1, 4, 9), split.targets),
    ]
    assert len({s.fingerprint() for s in (split, *others)}) == 4


def test_the_fingerprint_does_not_depend_on_the_layout_in_memory() -> None:
    split = numbered(8, channels=3)
    turned = Split(split.images.contiguous(memory_format=torch.channels_last), split.targets)
    assert turned.fingerprint() == split.fingerprint()


def test_the_fingerprint_of_a_set_is_of_labels_and_all_splits() -> None:
    normalisation = Normalisation((0.0,) * 3, (1.0,) * 3)
    data = ImageData(
        "x", ("a", "b"), numbered(8), numbered(6), numbered(4), normalisation, Augmentation(0, False)
    )
    others = [
        replace(data, labels=("a", "c")),
        replace(data, validation=numbered(4), test=numbered(6)),
        replace(data, train=numbered(9)),
    ]
    assert len({d.fingerprint() for d in (data, *others)}) == 4
    assert replace(data, name="y").fingerprint() == data.fingerprint()
    assert len({d.fingerprint(test=False) for d in (data, *others)}) == 4
    assert replace(data, test=numbered(5)).fingerprint(test=False) == data.fingerprint(test=False)


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_statistics(channels: int) -> None:
    pixels = noise(5, 20, channels, 7, 5)
    pixels[:, 0] //= 3
    found = channel_statistics(torch.from_numpy(pixels))
    expected = (pixels / 255).swapaxes(0, 1).reshape(channels, -1)
    np.testing.assert_allclose(found.mean, np.broadcast_to(expected.mean(1), 3), atol=1e-6)
    np.testing.assert_allclose(found.std, np.broadcast_to(expected.std(1), 3), atol=1e-6)


def test_images_of_one_colour_can_still_be_divided_by_std() -> None:
    assert channel_statistics(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)) == Normalisation(
        (0.2,) * 3, (0.001,) * 3
    )


def test_the_largest_remainders_are_rounded_up() -> None:
    inside, _ = stratified(torch.tensor([0] + [1] * 9), 2, seed=0)  # exact shares 0.2 and 1.8
    assert inside.tolist().count(0) == 0
