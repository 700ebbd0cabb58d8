"""Evolution beats chance, and keeps the budgets that can be kept."""

from __future__ import annotations

import numpy as np
import pytest

from nat2deploy.cost.model import CostModel
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.evolve import evolve
from nat2deploy.search.hypervolume import HypervolumeMeter
from nat2deploy.search.survival import reference_directions
from nat2deploy.space.sampling import uniform_depth_genes

POPULATION, GENERATIONS = 100, 20  # the defaults


@pytest.fixture(scope="module")
def run(wide_encoding, gene_error):
    """Evolve on the wide space from a few random architectures."""
    model = CostModel(wide_encoding.space, 10, None)
    directions = {width: reference_directions(width, POPULATION) for width in (2, 3)}

    def evolved(*budgets, metrics=(), seed=0, start=6, generations=GENERATIONS):
        objectives = Objectives(model, wide_encoding, parse_budgets(list(budgets)), metrics)
        genes = evolve(
            objectives,
            gene_error,
            directions[len(objectives)],
            start=uniform_depth_genes(wide_encoding, np.random.default_rng(100), start),
            population=POPULATION,
            generations=generations,
            seed=seed,
        )
        return objectives, genes

    return evolved


def rows(objectives, surrogate, genes):
    return objectives.matrix(surrogate.predict(genes), objectives.costs(genes))


@pytest.mark.parametrize("metrics", [("macs",), ("macs", "params")])
def test_the_last_population_is_canonical_distinct_and_in_the_space(run, metrics):
    objectives, genes = run(metrics=metrics)
    encoding = objectives.encoding
    assert genes.dtype == np.int64
    assert 1 <= len(genes) <= POPULATION
    np.testing.assert_array_equal(genes, encoding.repair(genes, "fill"))
    architectures = [encoding.decode(row) for row in genes]
    assert len(set(architectures)) == len(genes)
    np.testing.assert_array_equal(encoding.encode_all(architectures), genes)


@pytest.mark.parametrize("metrics", [("macs",), ("macs", "params")])
def test_evolution_beats_random_draws_at_the_same_number_of_predictions(run, gene_error, metrics):
    objectives, genes = run(metrics=metrics)
    draws = uniform_depth_genes(objectives.encoding, np.random.default_rng(1), POPULATION * GENERATIONS)
    chance = rows(objectives, gene_error, draws)
    meter = HypervolumeMeter(chance)
    assert meter(rows(objectives, gene_error, genes)) > 1.03 * meter(chance)


def test_more_generations_are_better(run, gene_error):
    objectives, few = run(generations=2)
    _, many = run(generations=20)
    meter = HypervolumeMeter(rows(objectives, gene_error, few))
    assert meter(rows(objectives, gene_error, many)) > meter(rows(objectives, gene_error, few))


def test_budgets_are_kept_where_they_can_be(run, gene_error, wide_encoding):
    free, _ = run(generations=1)
    draws = uniform_depth_genes(wide_encoding, np.random.default_rng(2), 300)
    limit = float(np.quantile(free.costs(draws)["macs"], 0.1))
    error = float(np.median(gene_error.predict(draws)))
    objectives, genes = run(f"macs<={limit:.0f}", f"top1>={1 - error:.4f}", metrics=("macs",))
    assert (objectives.costs(genes)["macs"] <= limit).all()
    assert (gene_error.predict(genes) <= error + 1e-4).all()


def test_a_budget_that_none_keeps_draws_towards_it(run, gene_error):
    _, genes = run("top1>=99%")  # the synthetic error is never below 0.1
    _, free = run()
    assert len(genes) > 0
    assert gene_error.predict(genes).mean() < gene_error.predict(free).mean()


def test_the_same_seed_evolves_the_same(run):
    first, second, other = run(seed=5)[1], run(seed=5)[1], run(seed=6)[1]
    np.testing.assert_array_equal(first, second)
    assert first.shape != other.shape or (first != other).any()


@pytest.mark.parametrize("start", [0, 3, 200])
def test_any_number_of_starting_architectures_will_do(run, start):
    _, genes = run(start=start, generations=2)
    assert len(genes) <= POPULATION
