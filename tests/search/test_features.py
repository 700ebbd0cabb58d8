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


@given(st.lists(st.integers(10, 60), min_size=2, max_size=2, unique=True))
def test_squares_say_nothing_of_two_ends(tenths):
    space = load_space("nano")  # of two kernels
    ends = tuple(sorted(tenth / 10 for tenth in tenths))
    table = SurrogateInput("choices", IntegerEncoding(space.model_copy(update={"expansions": ends})))._layers
    assert table.shape[1] == len(("presence", "kernel", "expansion"))


@given(st.integers(0, 10_000))
def test_one_more_kernel_changes_what_is_told_of_that_kernel(wide_encoding, seed):
    """Whatever else the layer is: that is what makes choices easier to learn from than genes."""
    rng = np.random.default_rng(seed)
    genes = uniform_depth_genes(wide_encoding, rng, 1)
    present = np.flatnonzero(genes[0, wide_encoding.first_layer :]) + wide_encoding.first_layer
    place = rng.choice(present)
    kernels = wide_encoding.space.kernels
    kernel = (genes[0, place] - 1) % len(kernels)
    other = genes.copy()
    other[0, place] += 1 if kernel < len(kernels) - 1 else -1
    see = SurrogateInput("choices", wide_encoding)
    changed = np.abs(see(other) - see(genes))[0]
    # The same step as any other layer's, and its square where there are more than two.
    step = 2 / (len(kernels) - 1)
    assert sorted(changed[changed > 0]) == pytest.approx([step] if len(kernels) == 2 else [step, 1.0])


@pytest.mark.parametrize("features", ["integer", "one-hot", "choices"])
def test_the_logarithms_of_costs_follow_in_the_order_of_their_names(wide_encoding, features):
    genes = uniform_depth_genes(wide_encoding, np.random.default_rng(2), 7)
    plain = SurrogateInput(features, wide_encoding)(genes)
    table = SurrogateInput(features, wide_encoding, _costs)(genes)
    logs = np.log(np.stack([_costs(genes)["macs"], _costs(genes)["params"]], axis=1))
    np.testing.assert_array_equal(table[:, : plain.shape[1]], plain)
    np.testing.assert_allclose(table[:, plain.shape[1] : plain.shape[1] + 2], logs)
    more = features == "choices" and len(wide_encoding.space.resolutions) > 1
    assert table.shape[1] == plain.shape[1] + 2 + more


def test_what_resolution_is_worth_may_depend_on_size():
    encoding = IntegerEncoding(load_space("nano").restrict(resolutions=(28, 32, 64)))
    genes = np.repeat(uniform_depth_genes(encoding, np.random.default_rng(3), 2), 3, axis=0)
    genes[:, 0] = [0, 1, 2] * 2
    both = SurrogateInput("choices", encoding, _costs)(genes)[:, -1]
    ends = encoding.repair(np.stack([encoding.lower, encoding.upper]))
    around = np.log(_costs(genes)["macs"]) - np.log(_costs(ends)["macs"]).mean()
    np.testing.assert_allclose(both, np.array([-1, -7 / 9, 1] * 2) * around)


def test_one_resolution_is_no_choice():
    encoding = IntegerEncoding(load_space("nano").restrict(resolutions=(28,)))
    genes = uniform_depth_genes(encoding, np.random.default_rng(4), 5)
    plain, table = (SurrogateInput("choices", encoding, costs)(genes) for costs in (None, _costs))
    assert table.shape[1] == plain.shape[1] + 2


def _costs(genes):
    """More for each gene, from 1 on."""
    total = 1.0 + genes.sum(axis=1)
    return {"params": np.sqrt(total), "macs": total}
