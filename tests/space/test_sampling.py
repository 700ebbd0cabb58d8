import numpy as np
import pytest

from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import (
    latin_hypercube_genes,
    random_architectures,
    uniform_depth_genes,
    uniform_genes,
)
from nat2deploy.space.search_space import load_space

OFA = IntegerEncoding(load_space("ofa-mbv3"))
COUNT = 10_000


def depth_shares(genes):
    """Shares of depths 2, 3 and 4 over all stages of Once-For-All vectors without holes."""
    depths = (genes[:, 2:].reshape(-1, 4) > 0).sum(1)
    return [float((depths == depth).mean()) for depth in (2, 3, 4)]


# 50,000 stages: the standard error is at most 0.0023, so 0.01 is over four of them.
def test_uniform_genes_with_push_give_nats_depths():
    genes = uniform_genes(OFA, np.random.default_rng(1), COUNT)
    assert depth_shares(OFA.repair(genes, "push")) == pytest.approx([0.01, 0.18, 0.81], abs=0.01)
    assert depth_shares(OFA.repair(genes, "push"))[0] == pytest.approx(0.01, abs=0.003)


def test_uniform_depth_genes_give_nat2s_depths():
    genes = uniform_depth_genes(OFA, np.random.default_rng(2), COUNT)
    assert depth_shares(genes) == pytest.approx([1 / 3, 2 / 9, 4 / 9], abs=0.01)
    assert (OFA.repair(genes, "fill") == genes).all()


@pytest.mark.parametrize("draw", [uniform_genes, uniform_depth_genes])
def test_draws_are_within_bounds_reach_them_and_are_even(draw):
    genes = draw(OFA, np.random.default_rng(3), COUNT)
    assert genes.shape == (COUNT, len(OFA))
    assert genes.dtype == np.int64
    assert (genes.min(0) == OFA.lower).all()
    assert (genes.max(0) == OFA.upper).all()
    required = genes[:, 2:].reshape(-1, 4)[:, :2]
    shares = np.bincount(required.ravel(), minlength=10)[1:] / required.size
    assert shares == pytest.approx(np.full(9, 1 / 9), abs=0.01)
    resolutions = np.bincount(genes[:, 0], minlength=33) / COUNT
    assert resolutions == pytest.approx(np.full(33, 1 / 33), abs=0.01)


@pytest.mark.parametrize("draw", [uniform_genes, uniform_depth_genes])
def test_draws_follow_the_generator(draw):
    first, again, other = (draw(OFA, np.random.default_rng(seed), 20).tolist() for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_random_architectures_are_distinct_seeded_and_of_the_space():
    first, again, other = (random_architectures(OFA, np.random.default_rng(s), 200) for s in (7, 7, 8))
    assert first == again
    assert first != other
    assert len(set(first)) == 200
    assert all(OFA.space.contains(architecture) for architecture in first)
    assert {depth for a in first for depth in a.depths} == {2, 3, 4}


def test_a_small_space_gives_all_it_has(tiny_space):
    few = tiny_space.model_copy(
        update={"kernels": (3,), "expansions": (1.0, 2.5), "depths": (1,), "widths": (1.0,)}
    )
    # 2 resolutions × 2 expansions in each of 2 stages
    found = random_architectures(IntegerEncoding(few), np.random.default_rng(0), 100)
    assert len(found) == len(set(found)) == 8


@pytest.mark.parametrize("repair", ["push", "fill"])
def test_a_latin_hypercube_shows_every_value_of_a_gene_as_often(repair):
    encoding = IntegerEncoding(load_space("ofa-mbv3"))
    count = 3 * 5 * 10
    genes = latin_hypercube_genes(encoding, np.random.default_rng(0), count, repair)
    np.testing.assert_array_equal(genes, encoding.repair(genes, "fill"))
    for column in (0, 1, 2):  # a stage's first layer is present and stays where it is
        low = max(encoding.lower[column], encoding.required[column])
        seen = np.bincount(genes[:, column] - low, minlength=encoding.upper[column] - low + 1)
        assert seen.max() - seen.min() <= 2
    np.testing.assert_array_equal(
        genes, latin_hypercube_genes(encoding, np.random.default_rng(0), count, repair)
    )


def test_a_push_of_nat2s_draws_keeps_more_layers():
    encoding = IntegerEncoding(load_space("ofa-mbv3"))
    layers = [
        (uniform_depth_genes(encoding, np.random.default_rng(0), 300, repair) > 0).mean()
        for repair in ("push", "fill")
    ]
    assert layers[0] > layers[1]
