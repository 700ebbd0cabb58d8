"""The authors' choice of candidates: those that close the gaps along each cost (NAT2's subset selection)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.crossover import Crossover
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.optimize import minimize

from nat2deploy.search.survival import Floats

Bools = NDArray[np.bool_]


class GapProblem(Problem):  # type: ignore[misc]
    """Minimise how unevenly the costs of front and subset lie: subsets [S, N] of ``count`` rows.

    ``costs`` [N, C] of the rows to choose from and ``front`` [F, C] of the archive's front are taken in units
    of their common span, so that no cost outweighs another.
    """

    def __init__(self, costs: Floats, front: Floats, count: int) -> None:
        super().__init__(n_var=len(costs), n_obj=1, xl=0, xu=1, vtype=bool)
        span = np.ptp(np.concatenate([costs, front]), axis=0)
        span = np.where(span > 0, span, 1.0)
        self.costs, self.front, self.count = costs / span, front / span, count

    def unevenness(self, subsets: Bools) -> Floats:
        """The largest standard deviation [S] of the gaps between neighbours along any cost."""
        rows = np.nonzero(subsets)[1].reshape(len(subsets), self.count)
        front = np.broadcast_to(self.front, (len(subsets), *self.front.shape))
        lying = np.sort(np.concatenate([self.costs[rows], front], axis=1), axis=1)
        if lying.shape[1] < 2:
            return np.zeros(len(subsets))
        worst: Floats = np.diff(lying, axis=1).std(axis=1).max(axis=1)
        return worst

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = self.unevenness(np.asarray(x, dtype=np.bool_))


def of_each(chances: Floats, count: NDArray[np.int64]) -> Bools:
    """In each row of chances [S, N] the ``count`` [S] places of the highest ones, as [S, N]."""
    places = np.argsort(np.argsort(-chances, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(places < count[:, None])


class KeepShared(Crossover):  # type: ignore[misc]
    """What both parents hold stays; the rest is drawn from what one of them holds."""

    def __init__(self) -> None:
        super().__init__(2, 1)

    def _do(self, problem: Problem, x: Any, *args: Any, random_state: Any = None, **kwargs: Any) -> Bools:
        one, other = x[0].astype(np.bool_), x[1].astype(np.bool_)
        chances = random_state.random(one.shape) + 2.0 * (one & other) - 2.0 * ~(one | other)
        return of_each(chances, one.sum(axis=1))[None]


class Swap(Mutation):  # type: ignore[misc]
    """One row goes and another comes."""

    def _do(self, problem: Problem, x: Any, *args: Any, random_state: Any = None, **kwargs: Any) -> Bools:
        held = np.asarray(x, dtype=np.bool_)
        if held.all():
            return held
        one = np.ones(len(held), dtype=np.int64)
        gone = of_each(random_state.random(held.shape) + held, one)
        new = of_each(random_state.random(held.shape) + ~held, one)
        return (held & ~gone) | new


def select_even(
    objectives: Floats,
    violations: Floats,
    known: Floats,
    count: int,
    *,
    seed: int,
    population: int = 500,
    generations: int = 200,
) -> NDArray[np.int64]:
    """Indices of up to ``count`` rows of predicted ``objectives`` [N, M] that lie evenly with the front.

    A binary genetic algorithm chooses ``count`` feasible rows (``violations`` [N] of 0) so that the largest
    standard deviation of gaps is least, along each cost (columns 1 and on) of them and of the archive's front
    ``known`` [K, M]. Where fewer are feasible, all are taken and the least violating fill up; lower predicted
    errors go first there, and alone decide where there is no cost objective.
    """
    order = np.lexsort((objectives[:, 0], np.maximum(violations, 0.0)))
    inside = np.flatnonzero(violations <= 0.0)
    if len(inside) <= count or objectives.shape[1] == 1:
        return order[:count]
    problem = GapProblem(objectives[inside, 1:], known[:, 1:], count)
    rng = np.random.default_rng(seed)
    start = of_each(rng.random((population, len(inside))), np.full(population, count))
    algorithm = GA(pop_size=population, sampling=start, crossover=KeepShared(), mutation=Swap())
    result = minimize(problem, algorithm, ("n_gen", generations), seed=seed, verbose=False)
    return inside[np.asarray(result.X, dtype=np.bool_)]
