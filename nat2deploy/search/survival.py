"""Who survives: the best of a set by constraint violation, non-dominated rank and spread."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from pymoo.util.ref_dirs import get_reference_directions

Floats = NDArray[np.float64]


def reference_directions(objectives: int, points: int, seed: int = 1) -> Floats:
    """Evenly spread unit directions [points, objectives]: exact for one or two objectives, else Riesz energy.

    From three objectives on there is at least one direction an objective.
    """
    if objectives == 1:
        return np.ones((1, 1))
    if objectives == 2:
        return np.asarray(get_reference_directions("uniform", 2, n_partitions=points - 1), dtype=np.float64)
    points = max(points, objectives)  # pymoo fails on fewer
    return _riesz(objectives, points, seed).copy()


@lru_cache(maxsize=16)
def _riesz(objectives: int, points: int, seed: int) -> Floats:
    """Kept, for they take seconds to find."""
    return np.asarray(get_reference_directions("energy", objectives, points, seed=seed), dtype=np.float64)


def non_dominated(objectives: Floats) -> NDArray[np.int64]:
    """Indices of the rows of [N, M] that no other row dominates (all objectives minimised)."""
    if len(objectives) == 0:
        return np.empty(0, dtype=np.int64)
    front = NonDominatedSorting().do(objectives, only_non_dominated_front=True)
    return np.sort(np.asarray(front, dtype=np.int64))


def survivors(
    objectives: Floats, violations: Floats, count: int, seed: int, directions: Floats | None = None
) -> NDArray[np.int64]:
    """Indices of the ``count`` best rows of ``objectives`` [N, M] under ``violations`` [N] (0 is feasible).

    One objective: sorted; two: rank and crowding; more: reference directions (NAT2's archive update).
    Feasible rows come before infeasible ones, which go by violation.
    """
    total = len(objectives)
    if count >= total:
        return np.arange(total)
    if count <= 0:  # what is always kept takes all places
        return np.empty(0, dtype=np.int64)
    feasible = np.flatnonzero(violations <= 0.0)
    if len(feasible) <= count:
        rest = np.setdiff1d(np.arange(total), feasible)
        order = rest[np.lexsort((objectives[rest, 0], violations[rest]))]
        return np.sort(np.concatenate([feasible, order[: count - len(feasible)]]))
    if objectives.shape[1] == 1:
        return np.sort(feasible[np.argsort(objectives[feasible, 0], kind="stable")[:count]])
    return np.sort(feasible[_spread(objectives[feasible], count, seed, directions)])


def _spread(objectives: Floats, count: int, seed: int, directions: Floats | None) -> NDArray[np.int64]:
    width = objectives.shape[1]
    problem = Problem(n_var=1, n_obj=width)
    members = [Individual(X=np.array([float(i)]), F=row.copy()) for i, row in enumerate(objectives)]
    population = Population(members)
    for individual in population:
        individual.evaluated.update({"F", "G", "H"})
    if width == 2:
        survival = RankAndCrowding()
    else:
        survival = ReferenceDirectionSurvival(
            directions if directions is not None else reference_directions(width, count)
        )
    kept = survival.do(problem, population, n_survive=count, random_state=np.random.default_rng(seed))
    return np.asarray([int(individual.X[0]) for individual in kept], dtype=np.int64)
