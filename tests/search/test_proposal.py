"""A batch of candidates: new ones, and as many as are wanted where there are so many."""

from __future__ import annotations

import numpy as np
import pytest

from nat2deploy.cost.model import CostModel
from nat2deploy.search.archive import Evaluation
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.proposal import Batch, fit, propose
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.survival import reference_directions
from nat2deploy.space.sampling import uniform_depth_genes

SETTINGS = {"population": 20, "generations": 4, "surrogates": ("ridge",)}


@pytest.fixture(scope="module")
def objectives(wide_encoding):
    return Objectives(CostModel(wide_encoding.space, 10, None), wide_encoding, parse_budgets(["params<=60k"]))


@pytest.fixture(scope="module")
def archive(objectives, gene_error):
    genes = np.unique(uniform_depth_genes(objectives.encoding, np.random.default_rng(3), 40), axis=0)
    errors = gene_error.predict(genes)
    architectures = [objectives.encoding.decode(row) for row in genes]
    return [
        Evaluation(a, 0, "archive", 0.0, objectives.values(a, 1 - float(error)))
        for a, error in zip(architectures, errors, strict=True)
    ]


def batch_of(objectives, archive, size, known=(), **changes):
    settings = SearchSettings(**SETTINGS, **changes)
    batch = Batch(0, 0, size)
    surrogate = fit(archive, objectives, settings, batch)
    known = [*(e.architecture for e in archive), *known]
    directions = reference_directions(len(objectives), settings.population)
    return propose(surrogate, archive, known, objectives, settings, batch, directions)


def test_none_is_known_and_the_next_batch_is_another(objectives, archive):
    first = batch_of(objectives, archive, 5)
    second = batch_of(objectives, archive, 5, known=first)
    everything = [*(e.architecture for e in archive), *first, *second]
    assert len(first) == len(second) == 5
    assert len(set(everything)) == len(everything)


def test_expected_improvement_chooses_from_all_that_evolution_looked_at(objectives, archive):
    wanted = 30  # more than a population
    ours = batch_of(objectives, archive, wanted, subset="expected-improvement")
    authors = batch_of(objectives, archive, wanted, subset="gap-variance", subset_population=8)
    assert len(ours) == len(set(ours)) == wanted
    assert len(authors) <= SETTINGS["population"]


def test_batches_have_seeds_of_their_own():
    settings = SearchSettings(seed=5)
    seeds = {Batch(version, number, 8).seed(settings, 1009) for version in range(30) for number in range(4)}
    assert len(seeds) == 120
    assert Batch(7, 0, 8).seed(settings, 1013) == 5 * 1013 + 7


@pytest.mark.parametrize("count", [4, 12])
def test_an_accuracy_budget_keeps_candidates_out_that_are_not_accurate_enough(wide_encoding, archive, count):
    """Small networks would add most where all errors count, and nothing where the budget leaves them out."""

    def errors(*budgets):
        limited = Objectives(
            CostModel(wide_encoding.space, 10, None), wide_encoding, parse_budgets(budgets), ("params",)
        )
        surrogate = fit(archive, limited, SearchSettings(**SETTINGS), Batch(0, 0, count))
        chosen = batch_of(limited, archive, count)
        return surrogate.predict(wide_encoding.encode_all(chosen))

    found = np.sort([e.error for e in archive])
    allowed = float(found[len(found) // 3])
    assert (errors() > allowed + 0.02).any()
    assert (errors(f"top1>={1 - allowed:.6f}") <= allowed + 0.02).all()
