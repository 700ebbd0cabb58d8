"""Augmentation moves pixels as it says, against a plain loop."""

from __future__ import annotations

import pytest
import torch
from data_helpers import noise

from nat2deploy.data.augment import Augmentation


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(image: torch.Tensor, down: int, right: int, flip: bool) -> torch.Tensor:
    """Shift [C, H, W] pixel by pixel, black from outside, then mirror."""
    height, width = image.shape[1:]
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[:, y, x] = image[:, y - down, x - right]
    return result.flip(2) if flip else result


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 5, 5), (3, 4, 6)])
def test_every_image_is_one_shift_and_all_shifts_occur(
    flip: bool, channels: int, height: int, width: int
) -> None:
    image = torch.from_numpy(noise(1, channels, height, width)).clamp(min=1)
    moves = {
        moved(image, down, right, flipped).numpy().tobytes(): (down, right, flipped)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        for flipped in ((False, True) if flip else (False,))
    }
    batch = image.expand(1200, -1, -1, -1)
    result = Augmentation(pad=1, flip=flip).apply(batch, generator(0))
    assert result.shape == batch.shape and result.dtype == torch.uint8
    seen = [moves[one.contiguous().numpy().tobytes()] for one in result]
    assert set(seen) == set(moves.values())
    # Uniform: each of n moves comes 1200/n times, within five standard deviations.
    for move in moves.values():
        assert abs(seen.count(move) - 1200 / len(moves)) < 5 * (1200 / len(moves)) ** 0.5


def test_each_image_keeps_its_place_in_the_batch() -> None:
    levels = torch.arange(1, 101, dtype=torch.uint8)
    batch = levels[:, None, None, None].expand(-1, 1, 8, 8)
    result = Augmentation(pad=2, flip=True).apply(batch, generator(0))
    assert torch.equal(result.amax(dim=(1, 2, 3)), levels)
    assert torch.equal(result[:, 0, 3, 3], levels)  # the centre is never pushed out


def test_the_generator_alone_decides() -> None:
    batch = torch.from_numpy(noise(2, 30, 1, 8, 8))
    augment = Augmentation(pad=2, flip=True)
    state = torch.get_rng_state()
    first = augment.apply(batch, generator(5))
    assert torch.equal(first, augment.apply(batch, generator(5)))
    assert not torch.equal(first, augment.apply(batch, generator(6)))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_to_do_changes_nothing() -> None:
    batch = torch.from_numpy(noise(3, 6, 3, 5, 7))
    assert torch.equal(Augmentation(pad=0, flip=False).apply(batch, generator(0)), batch)
