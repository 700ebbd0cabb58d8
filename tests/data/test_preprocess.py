"""The one path from raw pixels to network input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from data_helpers import noise
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from nat2deploy.data.preprocess import Preprocessing, resize

GIVEN: dict[str, Any] = {"resolution": 8, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 0.2)}


def test_square_images_become_the_resolution_and_are_normalised():
    images = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    found = Preprocessing(resolution=28, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0)).apply(images)
    assert found.shape == (2, 3, 28, 28)
    assert found[0, :, 3, 3].tolist() == pytest.approx([1.0, 1.5, 0.5])


@pytest.mark.parametrize(("height", "width"), [(20, 30), (30, 20), (50, 16), (9, 9)])
def test_agrees_with_torchvision_on_any_shape(height, width):
    from torchvision.transforms import v2  # takes seconds

    images = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(1)).float()
    chain = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])
    assert torch.allclose(resize(images, 16), chain(images), atol=1e-3)


def test_shrinking_is_antialiased_like_pillow():
    images = torch.randint(0, 256, (1, 1, 64, 64), generator=torch.Generator().manual_seed(2)).byte()
    pillow = Image.fromarray(images[0, 0].numpy()).resize((16, 16), Image.Resampling.BILINEAR)
    difference = resize(images, 16)[0, 0] - torch.tensor(list(pillow.getdata())).view(16, 16)
    assert float(difference.abs().max()) <= 1.0  # Pillow rounds to whole levels


@pytest.mark.parametrize(
    "field", [{"resolution": 0}, {"std": (0.0, 1.0, 1.0)}, {"mean": (float("nan"),) * 3}]
)
def test_impossible_values_are_refused(field):
    with pytest.raises(ValidationError):
        Preprocessing(**{"resolution": 8, "mean": (0, 0, 0), "std": (1, 1, 1)} | field)


def test_normalises_each_channel() -> None:
    images = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)
    found = Preprocessing(**GIVEN).apply(images)
    assert found.dtype == torch.float32 and found.shape == (2, 3, 8, 8)
    expected = torch.tensor([0.2, 0.0, -0.5]).view(1, 3, 1, 1).expand_as(found)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_grey_is_the_same_as_three_equal_channels() -> None:
    grey = torch.from_numpy(noise(1, 4, 1, 12, 12))
    path = Preprocessing(**GIVEN)
    torch.testing.assert_close(path.apply(grey), path.apply(grey.repeat(1, 3, 1, 1)))


def test_at_its_own_size_an_image_keeps_its_pixels() -> None:
    images = torch.from_numpy(noise(2, 3, 3, 8, 8))
    assert torch.equal(resize(images, 8), images.float())


@given(size=st.integers(2, 40), resolution=st.integers(2, 40), seed=st.integers(0, 9))
def test_resizes_squares_as_torchvision_does(size: int, resolution: int, seed: int) -> None:
    from torchvision.transforms import v2  # takes seconds

    images = torch.from_numpy(noise(seed, 2, 3, size, size))
    expected = v2.Resize(resolution, antialias=True)(images.float())
    torch.testing.assert_close(resize(images, resolution), expected, atol=1e-3, rtol=0)


@given(height=st.integers(1, 60), width=st.integers(1, 60), resolution=st.integers(1, 40))
def test_any_shape_becomes_the_square(height: int, width: int, resolution: int) -> None:
    found = resize(torch.zeros(1, 1, height, width, dtype=torch.uint8), resolution)
    assert found.shape == (1, 1, resolution, resolution)


@pytest.mark.parametrize("upright", [False, True])
def test_keeps_the_centre_of_an_oblong(upright: bool) -> None:
    image = torch.zeros(1, 1, 10, 30, dtype=torch.uint8)
    image[..., 10:20] = 255
    found = resize(image.transpose(2, 3) if upright else image, 10)
    assert bool((found == 255).all())


def test_survives_json() -> None:
    path = Preprocessing(**GIVEN)
    assert Preprocessing.model_validate_json(path.model_dump_json()) == path


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 0},
        {"resolution": 5000},
        {"resolution": 8.5},
        {"mean": (0.0, 0.0)},
        {"mean": (math.nan, 0.0, 0.0)},
        {"std": (1.0, 0.0, 1.0)},
        {"std": (1.0, math.inf, 1.0)},
        {"extra": 1},
    ],
)
def test_refuses_what_cannot_be_applied(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing(**{**GIVEN, **change})
