"""The runner's preprocessing against PyTorch's, and against what training saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.runner.preprocess import preprocess, taps


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(size_in=st.integers(1, 90), size_out=st.integers(1, 90))
@settings(max_examples=150, deadline=None)
def test_taps_are_those_of_pytorch(size_in: int, size_out: int) -> None:
    matrix = np.zeros((size_out, size_in), np.float32)
    for row, places, weights in zip(matrix, *taps(size_in, size_out, 0, size_out), strict=True):
        np.add.at(row, places, weights)
    # Two columns, because PyTorch 2.15 repeats the first row where the output is one pixel wide.
    unit = torch.eye(size_in).reshape(1, size_in, size_in, 1).repeat(1, 1, 1, 2)
    expected = interpolate(unit, (size_out, 2), mode="bilinear", antialias=True)[0, :, :, 0].T
    np.testing.assert_allclose(matrix, expected.numpy(), atol=2e-5)


@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    resolution=st.integers(2, 64),
    seed=st.integers(0, 99),
)
@example(height=1, width=120, resolution=64, seed=0)
@example(height=33, width=34, resolution=32, seed=0)
@example(height=28, width=28, resolution=28, seed=0)
@settings(max_examples=150, deadline=None)
def test_agrees_with_the_preprocessing_of_training(
    height: int, width: int, resolution: int, seed: int
) -> None:
    image = noise(seed, height, width)
    plain = Preprocessing(resolution=resolution, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = plain.apply(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])[0].numpy()
    found = preprocess(image, plain.model_dump(mode="json"))
    assert found.dtype == np.float32 and found.shape == (3, resolution, resolution)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(300, 500), (1000, 224), (223, 225), (8, 8)])
def test_agrees_on_photo_sizes_with_normalisation(height: int, width: int) -> None:
    image = noise(3, height, width)
    spec = Preprocessing(resolution=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = spec.apply(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])[0].numpy()
    np.testing.assert_allclose(preprocess(image, spec.model_dump(mode="json")), expected, atol=5e-4)
