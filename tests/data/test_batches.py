import torch

from nat2deploy.data.augment import Augmentation
from nat2deploy.data.batches import batch_count, batches
from nat2deploy.data.sets import Normalisation, Split

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


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
