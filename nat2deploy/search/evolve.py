"""The inner search: evolution on predicted error and exact costs, within the budgets."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.pntx import TwoPointCrossover
from pymoo.operators.mutation.pm import PolynomialMutation
from pymoo.optimize import minimize

from nat2deploy.search.costs import Objectives
from nat2deploy.search.searchers import make_searcher
from nat2deploy.search.surrogate import Surrogate
from nat2deploy.search.survival import Floats
from nat2deploy.space.encoding import Genes
from nat2deploy.space.encoding import Repair as RepairKind
from nat2deploy.space.sampling import latin_hypercube_genes, uniform_depth_genes


class Evolved(NamedTuple):
    """Distinct canonical genes [N, G]: those of the last population, and all that were looked at."""

    last: Genes
    visited: Genes


class SubNetworkProblem(Problem):  # type: ignore[misc]
    """Minimise predicted error and exact costs over genes; each budget is a constraint."""

    def __init__(self, objectives: Objectives, surrogate: Surrogate) -> None:
        encoding = objectives.encoding
        super().__init__(
            n_var=len(encoding),
            n_obj=len(objectives),
            n_ieq_constr=len(objectives.budgets),
            xl=encoding.lower,
            xu=encoding.upper,
            vtype=int,
        )
        self.objectives = objectives
        self.surrogate = surrogate
        self.visited: dict[bytes, Genes] = {}

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        genes = np.asarray(x, dtype=np.int64)
        self.visited.update((row.tobytes(), row) for row in genes)
        errors = self.surrogate.predict(genes)
        costs = self.objectives.costs(genes)
        out["F"] = self.objectives.matrix(errors, costs)
        if self.objectives.budgets:
            accuracy = [b.limit - (1.0 - errors) for b in self.objectives.top1_budgets]
            limits = self.objectives.cost_violations(costs)
            out["G"] = np.column_stack([limits, *accuracy]) if accuracy else limits


class CanonicalGenes(Repair):  # type: ignore[misc]
    """Rounds offspring to integers and closes holes inside stages.

    The authors decode what evolution makes as it is, so that a hole draws a random layer.
    """

    def __init__(self, how: RepairKind) -> None:
        super().__init__()
        self.how: RepairKind = how

    def _do(self, problem: Problem, x: Any, **kwargs: Any) -> Genes:
        encoding = problem.objectives.encoding
        return encoding.repair(np.rint(x).astype(np.int64), self.how)  # type: ignore[no-any-return]


class EqualGenes(DuplicateElimination):  # type: ignore[misc]
    """Finds equal vectors by their bytes; pymoo's own measures all distances."""

    def _do(self, pop: Any, other: Any, is_duplicate: Any) -> Any:
        seen = set() if other is None else {individual.X.tobytes() for individual in other}
        for i, individual in enumerate(pop):
            key = individual.X.tobytes()
            is_duplicate[i] |= key in seen
            seen.add(key)
        return is_duplicate


def evolve(
    objectives: Objectives,
    surrogate: Surrogate,
    directions: Floats,
    *,
    start: Genes,
    population: int,
    generations: int,
    seed: int,
    searcher: str = "nsga3",
    sampling: Literal["archive", "lhs"] = "archive",
    repair: RepairKind = "fill",
    crossover: float = 0.9,
    eta: float = 1.0,
) -> Evolved:
    """Evolve, and return the last population and all that were looked at.

    ``sampling``: the first population is ``start`` [K, G] (the archive's best), filled up with random draws,
    or an integer Latin hypercube (NAT2). Operators and rates are NAT2's: two-point crossover, and polynomial
    mutation of distribution index ``eta``, rounded to integers.

    Raises:
        UserError: the searcher's package is not installed.
    """
    rng = np.random.default_rng(seed)
    encoding = objectives.encoding
    if sampling == "lhs":
        first = latin_hypercube_genes(encoding, rng, population, repair)
    else:
        draws = uniform_depth_genes(encoding, rng, population, repair)
        first = np.concatenate([start, draws])[:population]
    algorithm = make_searcher(
        searcher,
        directions,
        pop_size=population,
        sampling=first,
        crossover=TwoPointCrossover(prob=crossover),
        mutation=PolynomialMutation(eta=eta, vtype=float),
        repair=CanonicalGenes(repair),
        eliminate_duplicates=EqualGenes(),
    )
    problem = SubNetworkProblem(objectives, surrogate)
    result = minimize(problem, algorithm, ("n_gen", generations), seed=seed, verbose=False)
    last: Genes = np.unique(np.asarray(result.pop.get("X"), dtype=np.int64), axis=0)
    return Evolved(last, np.stack(list(problem.visited.values())))
