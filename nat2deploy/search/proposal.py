"""Which architectures a round judges next: surrogate, evolution on it, choice of candidates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nat2deploy.search.archive import Evaluation
from nat2deploy.search.costs import Objectives
from nat2deploy.search.evolve import evolve
from nat2deploy.search.expected import Passed
from nat2deploy.search.passed_exits import passed_by
from nat2deploy.search.selection import SUBSETS
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.surrogate import Surrogate, best_surrogate
from nat2deploy.search.survival import Floats
from nat2deploy.search.update import best, feasible_front, objective_matrix
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding


class Batch(NamedTuple):
    """Candidates that are chosen together: ``size`` of them, of a version of the weights."""

    version: int
    number: int
    size: int

    def seed(self, settings: SearchSettings, factor: int) -> int:
        """A seed of its own for each batch."""
        return settings.seed * factor + self.version + 7919 * self.number


def fit(
    learned: list[Evaluation], objectives: Objectives, settings: SearchSettings, batch: Batch
) -> Surrogate:
    """Fit the surrogate of a batch on what was judged."""
    encoding = objectives.encoding
    return best_surrogate(
        settings.surrogates,
        encoding.encode_all([e.architecture for e in learned]),
        np.array([e.error for e in learned]),
        encoding,
        seed=batch.seed(settings, 1),
        folds=settings.surrogate_folds,
        features=None if settings.surrogate_features == "own" else settings.surrogate_features,
        ensemble=settings.surrogate_ensemble,
        costs_of=objectives.costs if settings.surrogate_costs else None,
        logarithmic=settings.surrogate_target == "log-error",
    )


def propose(
    surrogate: Surrogate,
    archive: list[Evaluation],
    known: list[Architecture],
    objectives: Objectives,
    settings: SearchSettings,
    batch: Batch,
    directions: Floats,
) -> list[Architecture]:
    """Evolve on the surrogate and choose the batch, none of which is ``known``.

    ``directions``: reference directions of survival.
    """
    encoding = objectives.encoding
    top = best(
        archive, objectives, settings.population // 2, seed=batch.seed(settings, 0), directions=directions
    )
    evolved = evolve(
        objectives,
        surrogate,
        directions,
        start=encoding.encode_all([e.architecture for e in top]),
        population=settings.population,
        generations=settings.generations,
        seed=batch.seed(settings, 1009),
        searcher=settings.searcher,
        sampling=settings.sampling,
        repair=settings.repair,
        crossover=settings.crossover,
        eta=settings.mutation_eta,
    )
    subset = SUBSETS[settings.subset](settings)
    fresh = _without(evolved.visited if subset.takes_visited else evolved.last, known, encoding)
    if len(fresh) == 0:
        return []
    costs = objectives.costs(fresh)
    votes = surrogate.votes(fresh)
    predicted = objectives.matrix(votes.mean(axis=0), costs)
    violations = np.maximum(objectives.cost_violations(costs), 0.0).sum(axis=1)
    front = objective_matrix(feasible_front(archive, objectives), objectives)
    if subset.takes_visited:  # evolution keeps its last population within accuracy budgets, and no more
        front = _with_allowed(front, predicted[violations <= 0.0], objectives)
    chosen = subset.choose(
        predicted,
        violations,
        front,
        surrogate.spread(votes),
        batch.size,
        seed=batch.seed(settings, 1013),
        passed=_passed(fresh, known, surrogate, objectives) if settings.passed_exits else None,
    )
    return [encoding.decode(fresh[i]) for i in chosen]


def _passed(
    fresh: Genes, known: list[Architecture], surrogate: Surrogate, objectives: Objectives
) -> Passed | None:
    """What fresh genes [N, G] pass that is not known."""
    owners, genes = passed_by(fresh, objectives.encoding)
    new = _are_new(genes, known, objectives.encoding)
    if not new.any():
        return None
    owners, genes = owners[new], genes[new]
    votes = surrogate.votes(genes)
    predicted = objectives.matrix(votes.mean(axis=0), objectives.costs(genes))
    return Passed(owners, predicted, surrogate.spread(votes))


def _with_allowed(front: Floats, predicted: Floats, objectives: Objectives) -> Floats:
    """A front [K, M], and one row more where a budget limits accuracy.

    The row has the largest error allowed at the least cost of all: only what errs less is an improvement.
    """
    rows = np.concatenate([front, predicted])
    if not objectives.top1_budgets or len(rows) == 0:
        return front
    allowed = rows.min(axis=0)
    allowed[0] = 1.0 - max(budget.limit for budget in objectives.top1_budgets)
    return np.concatenate([front, allowed[None]])


def _without(genes: Genes, known: list[Architecture], encoding: IntegerEncoding) -> Genes:
    """Those of genes [N, G] that are not known."""
    return genes[_are_new(genes, known, encoding)]


def _are_new(genes: Genes, known: list[Architecture], encoding: IntegerEncoding) -> NDArray[np.bool_]:
    """Which of genes [N, G] are not known, [N]."""
    old = {row.tobytes() for row in encoding.encode_all(known)}
    return np.array([row.tobytes() not in old for row in genes], dtype=np.bool_)
