import pytest
import torch

from nat2deploy.data.sets import Split, channel_statistics, stratified


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
