"""What adaptation samples from follows the archive's best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.search import distribution as module
from nat2deploy.search.distribution import (
    DISTRIBUTIONS,
    SLOW,
    FittedDistribution,
    GeneDistribution,
    families,
)
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import uniform_depth_genes
from nat2deploy.space.search_space import load_space


@pytest.fixture
def genes(wide_encoding):
    return uniform_depth_genes(wide_encoding, np.random.default_rng(0), 40)


def test_every_gene_has_a_probability_for_each_value(wide_encoding, genes):
    distribution = GeneDistribution(wide_encoding, genes)
    assert len(distribution.probabilities) == len(wide_encoding)
    for p, low, high in zip(
        distribution.probabilities, wide_encoding.lower, wide_encoding.upper, strict=True
    ):
        assert len(p) == high - low + 1
        assert p.sum() == pytest.approx(1.0)
        assert (p > 0).all()


def test_probabilities_are_smoothed_counts(wide_encoding, genes):
    distribution = GeneDistribution(wide_encoding, genes, smoothing=2.0)
    for column in (0, 2, 5):
        low, high = int(wide_encoding.lower[column]), int(wide_encoding.upper[column])
        # of a layer only where the one before it is present
        rows = genes if column < 3 else genes[genes[:, column - 1] > 0]
        counts = np.array([(rows[:, column] == value).sum() + 2.0 for value in range(low, high + 1)])
        np.testing.assert_allclose(distribution.probabilities[column], counts / counts.sum())


def test_depths_are_sampled_as_the_best_have_them():
    encoding = IntegerEncoding(load_space("ofa-mbv3").restrict(resolutions=(128,), widths=(1.0,)))
    space, rng = encoding.space, np.random.default_rng(0)
    for shares in ((0.5, 0.0, 0.5), (0.35, 0.21, 0.44)):
        depths = rng.choice([2, 3, 4], size=(400, 5), p=shares)
        genes = np.concatenate([np.zeros((400, 2), dtype=np.int64), np.full((400, 20), 5)], axis=1)
        absent = np.arange(4)[None, None] >= depths[..., None]
        genes[:, 2:][absent.reshape(400, 20)] = 0
        distribution = GeneDistribution(encoding, genes)
        drawn = [a for step in range(300) for a in distribution.sample(np.random.default_rng(step), 2)]
        found = np.bincount([depth for a in drawn for depth in a.depths], minlength=5)[2:] / (5 * len(drawn))
        assert found == pytest.approx(shares, abs=0.05)
        assert all(space.contains(a) for a in drawn)


def test_samples_favour_what_the_best_have(wide_encoding):
    space = wide_encoding.space
    best = wide_encoding.encode_all([space.largest(24)] * 50)
    drawn = GeneDistribution(wide_encoding, best).sample(np.random.default_rng(0), 40)
    layers = [layer for architecture in drawn for stage in architecture.stages for layer in stage]
    assert np.mean([layer == (7, 4.0, 1) for layer in layers]) > 0.7
    assert np.mean([architecture.depths == (4, 4, 4, 4) for architecture in drawn]) > 0.5
    resolutions = [
        GeneDistribution(wide_encoding, best).sample(np.random.default_rng(seed))[0].resolution
        for seed in range(30)
    ]
    assert resolutions.count(24) > 25


def test_samples_of_a_batch_are_in_the_space_share_a_resolution_and_differ(wide_encoding, genes):
    distribution = GeneDistribution(wide_encoding, genes)
    for seed in range(10):
        drawn = distribution.sample(np.random.default_rng(seed), 6)
        assert len(drawn) == 6
        assert all(wide_encoding.space.contains(architecture) for architecture in drawn)
        assert len({architecture.resolution for architecture in drawn}) == 1
        assert len(set(drawn)) > 1


def test_every_resolution_gets_its_turn(wide_encoding, genes):
    distribution = GeneDistribution(wide_encoding, genes)
    seen = {distribution.sample(np.random.default_rng(seed))[0].resolution for seed in range(40)}
    assert seen == set(wide_encoding.space.resolutions)


def test_the_same_numbers_draw_the_same(wide_encoding, genes):
    distribution = GeneDistribution(wide_encoding, genes)
    first, second = (distribution.sample(np.random.default_rng([1, 2, 3]), 4) for _ in range(2))
    assert first == second


def test_stages_that_do_not_run_say_nothing_of_their_layers():
    encoding = IntegerEncoding(load_space("nano-ee-d"))
    space = encoding.space
    early = encoding.encode_all([space.smallest()] * 30)  # all leave at the first exit
    late = encoding.encode_all([space.largest()])
    distribution = GeneDistribution(encoding, np.concatenate([early, late]))
    last_layer = distribution.probabilities[-1]  # only the one that runs to the end has it
    assert last_layer.argmax() == encoding.upper[-1] and last_layer[0] == last_layer[1]
    first_of_last_stage = encoding.first_layer + 3 * space.max_depth
    assert len(distribution.probabilities[first_of_last_stage]) == encoding.states - 1  # it must be there
    assert distribution.probabilities[2].argmax() == 0


@pytest.fixture
def few_families(monkeypatch):
    """Three families in place of a hundred: the fits take seconds."""
    monkeypatch.setattr(module, "families", lambda: ["norm", "expon", "uniform"])
    module._least_squares.cache_clear()
    yield
    module._least_squares.cache_clear()


def mass(counts):
    return np.array(module._least_squares(tuple(counts)))


@pytest.mark.parametrize(
    ("counts", "family"),
    [
        ([2, 15, 40, 55, 40, 15, 2, 0, 0], "norm"),
        ([80, 40, 20, 10, 5, 2, 1, 0, 0], "expon"),
        ([20, 20, 20, 20, 20, 20, 20, 20, 20], "uniform"),
    ],
)
def test_the_family_with_the_least_squared_error_wins_wherever_it_stands(
    few_families, monkeypatch, counts, family
):
    values = np.repeat(np.arange(9.0), counts)
    shares = np.array(counts) / sum(counts)
    errors = {
        name: np.square(module._rounded_mass(name, values, 9) - shares).sum()
        for name in ("norm", "expon", "uniform")
    }
    assert min(errors, key=errors.__getitem__) == family
    expected = module._rounded_mass(family, values, 9)
    np.testing.assert_array_equal(mass(counts), expected)
    monkeypatch.setattr(module, "families", lambda: ["uniform", "expon", "norm"])
    module._least_squares.cache_clear()
    np.testing.assert_array_equal(mass(counts), expected)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.permutations(["norm", "expon", "uniform"]))
def test_no_family_fits_any_counts_better(counts, order):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "families", lambda: order)
        module._least_squares.cache_clear()
        found = mass(counts)
        module._least_squares.cache_clear()
    assert found.shape == (len(counts),) and (found >= 0).all() and found.sum() == pytest.approx(1.0)
    if sum(counts) == 0:
        return
    shares = np.array(counts) / sum(counts)
    values = np.repeat(np.arange(float(len(counts))), counts)
    for name in order:
        other = module._rounded_mass(name, values, len(counts))
        if other is not None:
            assert np.square(found - shares).sum() <= np.square(other - shares).sum() + 1e-12


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.floats(0.01, 5))
def test_smoothed_counts_keep_the_order_of_counts_and_leave_no_value_out(counts, smoothing):
    encoding = IntegerEncoding(load_space("nano").restrict(resolutions=(28,)))
    distribution = GeneDistribution(encoding, encoding.encode_all([encoding.space.largest()]), smoothing)
    p = distribution._fit(np.array(counts))
    assert p.sum() == pytest.approx(1.0) and (p > 0).all()
    np.testing.assert_allclose(p * (sum(counts) + smoothing * len(counts)), np.array(counts) + smoothing)


def test_one_value_is_kept_and_none_says_nothing():
    assert mass([0, 7, 0]).tolist() == [0.0, 1.0, 0.0]
    assert mass([0, 0, 0, 0]).tolist() == [0.25] * 4


def test_all_but_the_slow_families_of_scipy_are_tried():
    from scipy import stats

    assert {"norm", "beta", "gamma", "expon", "weibull_min"} <= set(families())
    assert len(families()) > 90
    assert all(hasattr(stats, name) for name in SLOW)  # a typing error would leave nothing out
    assert not SLOW & set(families())


def test_the_best_of_all_families_is_no_worse_than_a_normal():
    counts = [10, 2, 3, 9, 21, 30, 25, 12, 6, 32]
    shares = np.array(counts) / sum(counts)
    normal = module._rounded_mass("norm", np.repeat(np.arange(10.0), counts), 10)
    assert np.square(mass(counts) - shares).sum() < 0.9 * np.square(normal - shares).sum()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("repair", ["push", "fill"])
def test_each_distribution_samples_networks_of_the_space(few_families, wide_encoding, genes, name, repair):
    distribution = DISTRIBUTIONS[name](wide_encoding, genes)
    for seed in range(5):
        drawn = distribution.sample(np.random.default_rng(seed), 4, repair)
        assert drawn == distribution.sample(np.random.default_rng(seed), 4, repair)
        assert all(wide_encoding.space.contains(architecture) for architecture in drawn)
        assert len({architecture.resolution for architecture in drawn}) == 1


def test_fitted_genes_follow_the_best(few_families, wide_encoding):
    best = wide_encoding.encode_all([wide_encoding.space.largest(24)] * 30)
    drawn = FittedDistribution(wide_encoding, best).sample(np.random.default_rng(0), 8)
    assert set(drawn) == {wide_encoding.space.largest(24)}
