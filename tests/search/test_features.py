"""What surrogates see: genes, the choices behind them, and costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.search.features import SurrogateInput
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import uniform_depth_genes
from nat2deploy.space.search_space import load_space


@pytest.fixture(scope="module", params=["nano", "nano-ee-d", "ofav2-mbv3"])
def rich_encoding(request):
    return IntegerEncoding(load_space(request.param))


def test_other_architectures_have_other_choices(rich_encoding):
    genes = np.unique(uniform_depth_genes(rich_encoding, np.random.default_rng(0), 300), axis=0)
    table = SurrogateInput("choices", rich_encoding)(genes)
    assert len(np.unique(table, axis=0)) == len(genes)
    assert np.isfinite(table).all() and np.abs(table[:, rich_encoding.first_layer :]).max() <= 4


def test_no_choice_is_told_twice_and_none_that_nobody_has(rich_encoding):
    table = SurrogateInput("choices", rich_encoding)._layers
    assert len(np.unique(table, axis=1).T) == table.shape[1]
    assert (np.ptp(table, axis=0) > 0).all()
    assert not table[0].any()  # an absent layer


@given(st.integers(0, 10_000))
def test_one_more_kernel_changes_one_feature(wide_encoding, seed):
    """Whatever else the layer is: that is what makes choices easier to learn from than genes."""
    rng = np.random.default_rng(seed)
    genes = uniform_depth_genes(wide_encoding, rng, 1)
    present = np.flatnonzero(genes[0, wide_encoding.first_layer :]) + wide_encoding.first_layer
    place = rng.choice(present)
    kernels = len(wide_encoding.space.kernels)
    kernel = (genes[0, place] - 1) % kernels
    other = genes.copy()
    other[0, place] += 1 if kernel < kernels - 1 else -1
    see = SurrogateInput("choices", wide_encoding)
    changed = np.flatnonzero(see(other)[0] != see(genes)[0])
    assert len(changed) == 1
    # The same step as any other layer's.
    assert abs(see(other) - see(genes)).max() == pytest.approx(2 / (kernels - 1))


@pytest.mark.parametrize("features", ["integer", "one-hot", "choices"])
def test_the_logarithms_of_costs_follow_in_the_order_of_their_names(wide_encoding, features):
    genes = uniform_depth_genes(wide_encoding, np.random.default_rng(2), 7)
    costs = {"params": np.arange(1.0, 8.0), "macs": np.full(7, 3.0)}
    plain = SurrogateInput(features, wide_encoding)(genes)
    table = SurrogateInput(features, wide_encoding, lambda _: costs)(genes)
    np.testing.assert_array_equal(table[:, :-2], plain)
    np.testing.assert_allclose(table[:, -2:], np.log(np.stack([costs["macs"], costs["params"]], axis=1)))
