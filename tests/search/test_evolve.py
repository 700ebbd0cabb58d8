"""Evolution beats chance, and keeps the budgets that can be kept."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.population import Population

from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.evolve import EqualGenes, evolve
from nat2deploy.search.hypervolume import HypervolumeMeter
from nat2deploy.search.searchers import SEARCHERS, check_searcher, make_searcher
from nat2deploy.search.survival import reference_directions
from nat2deploy.space.sampling import uniform_depth_genes

POPULATION, GENERATIONS = 100, 20  # the defaults


@pytest.fixture(scope="module")
def run(wide_encoding, gene_error):
    """Evolve on the wide space from a few random architectures."""
    model = CostModel(wide_encoding.space, 10, None)
    directions = {width: reference_directions(width, POPULATION) for width in (1, 2, 3)}

    def evolved(*budgets, metrics=(), seed=0, start=6, generations=GENERATIONS, accuracy_only=False, **how):
        objectives = Objectives(model, wide_encoding, parse_budgets(list(budgets)), metrics, accuracy_only)
        found = evolve(
            objectives,
            gene_error,
            directions[len(objectives)],
            start=uniform_depth_genes(wide_encoding, np.random.default_rng(100), start),
            population=POPULATION,
            generations=generations,
            seed=seed,
            **how,
        )
        assert {row.tobytes() for row in found.last} <= {row.tobytes() for row in found.visited}
        assert len(np.unique(found.visited, axis=0)) == len(found.visited) >= len(found.last)
        return objectives, found.last

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


@pytest.mark.parametrize("searcher", SEARCHERS)
@pytest.mark.parametrize("metrics", [("macs",), ("macs", "params")])
def test_every_searcher_beats_random_draws(run, gene_error, searcher, metrics):
    objectives, genes = run(metrics=metrics, searcher=searcher)
    draws = uniform_depth_genes(objectives.encoding, np.random.default_rng(1), POPULATION * GENERATIONS)
    chance = rows(objectives, gene_error, draws)
    meter = HypervolumeMeter(chance)
    assert meter(rows(objectives, gene_error, genes)) > 1.02 * meter(chance)
    np.testing.assert_array_equal(genes, run(metrics=metrics, searcher=searcher)[1])


@pytest.mark.parametrize(
    ("searcher", "objectives", "kind"),
    [
        ("by-objectives", 1, "GA"),
        ("by-objectives", 2, "NSGA2"),
        ("by-objectives", 3, "NSGA3"),
        ("by-objectives", 4, "NSGA3"),
        ("nsga3", 2, "NSGA3"),
        ("nsga3", 1, "GA"),
        ("nsga2", 3, "NSGA2"),
        ("age-moea-2", 2, "AGEMOEA2"),
    ],
)
def test_the_number_of_objectives_chooses_the_algorithm(searcher, objectives, kind):
    made = make_searcher(searcher, reference_directions(objectives, 12), pop_size=12)
    assert type(made).__name__ == kind


def test_fewer_individuals_than_directions_print_nothing(capsys):
    make_searcher("nsga3", reference_directions(3, 12), pop_size=8)
    assert capsys.readouterr().out == ""


def test_accuracy_alone_finds_the_most_accurate_within_the_budget(run, gene_error, wide_encoding):
    draws = uniform_depth_genes(wide_encoding, np.random.default_rng(2), 2000)
    free, _ = run(generations=1)
    costs = free.costs(draws)["macs"]
    limit = float(np.quantile(costs, 0.3))
    objectives, genes = run(f"macs<={limit:.0f}", accuracy_only=True)
    assert len(objectives) == 1
    assert (objectives.costs(genes)["macs"] <= limit).all()
    assert gene_error.predict(genes).min() < gene_error.predict(draws[costs <= limit]).min()


@pytest.mark.parametrize("repair", ["push", "fill"])
def test_evolution_from_a_latin_hypercube_is_canonical_and_needs_no_archive(run, gene_error, repair):
    objectives, genes = run(sampling="lhs", repair=repair, start=0)
    np.testing.assert_array_equal(genes, objectives.encoding.repair(genes, "fill"))
    other = run(sampling="lhs", repair=repair, start=9)[1]
    np.testing.assert_array_equal(genes, other)
    first = run(sampling="lhs", repair=repair, start=0, generations=1)
    meter = HypervolumeMeter(rows(objectives, gene_error, first[1]))
    assert meter(rows(objectives, gene_error, genes)) > meter(rows(objectives, gene_error, first[1]))


def test_a_searcher_whose_package_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_searcher("nsga3")
    with pytest.raises(UserError, match=r"needs the package numba; .*nat2deploy\[age-moea\]"):
        make_searcher("age-moea-2", reference_directions(2, 12), pop_size=12)


@given(st.lists(arrays(np.int64, 2, elements=st.integers(0, 2)), min_size=2), st.integers(0, 10))
def test_equal_genes_are_what_distances_of_nought_are(rows, known):
    population = Population.new(X=np.stack(rows))
    known = min(known, len(rows) - 1)
    fresh, old = population[known:], population[:known]
    ours, theirs = (how.do(fresh, old) for how in (EqualGenes(), DefaultDuplicateElimination()))
    assert ours.get("X").tolist() == theirs.get("X").tolist()
    assert list(ours) == list(theirs)


def test_equal_violations_are_drawn_by_the_seed(run, wide_encoding):
    """Of three objectives, where nothing keeps the budget and a tree's predictions are often equal."""

    class InSteps:
        def predict(self, genes):
            return 0.2 + 0.1 * (genes.sum(axis=1) % 3)

    model = CostModel(wide_encoding.space, 10, None)
    objectives = Objectives(model, wide_encoding, parse_budgets(["top1>=99%"]), ("macs", "params"), False)
    first, again = (
        evolve(
            objectives,
            InSteps(),
            reference_directions(3, 20),
            start=uniform_depth_genes(wide_encoding, np.random.default_rng(1), 6),
            population=20,
            generations=8,
            seed=5,
        ).visited
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
