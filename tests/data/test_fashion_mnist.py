"""The real Fashion-MNIST, where it is installed; its reader is tested with files of our own elsewhere."""

import pytest
import torch


def test_the_real_set_is_whole(load_fashion_mnist):
    data = load_fashion_mnist()
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
    assert torch.bincount(data.validation.targets).tolist() == [500] * 10
    assert data.mean[0] == pytest.approx(0.286, abs=0.002) and data.std[0] == pytest.approx(0.353, abs=0.002)
