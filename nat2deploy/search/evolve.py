"""The inner search: evolution on predicted error and exact costs, within the budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.pntx import TwoPointCrossover
from pymoo.operators.mutation.pm import PolynomialMutation
from pymoo.optimize import minimize

from nat2deploy.search.costs import Objectives
from nat2deploy.search.surrogate import Surrogate
from nat2deploy.search.survival import Floats
from nat2deploy.space.encoding import Genes
from nat2deploy.space.sampling import uniform_depth_genes


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

    def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        genes = np.asarray(x, dtype=np.int64)
        errors = self.surrogate.predict(genes)
        costs = self.objectives.costs(genes)
        out["F"] = self.objectives.matrix(errors, costs)
        if self.objectives.budgets:
            accuracy = [b.limit - (1.0 - errors) for b in self.objectives.top1_budgets]
            limits = self.objectives.cost_violations(costs)
            out["G"] = np.column_stack([limits, *accuracy]) if accuracy else limits


class CanonicalGenes(Repair):  # type: ignore[misc]
    """Rounds offspring to integers and clears what follows a stage's first absent layer (NAT2's fill)."""

    def _do(self, problem: Problem, x: Any, **kwargs: Any) -> Genes:
        encoding = problem.objectives.encoding
        return encoding.repair(np.rint(x).astype(np.int64), "fill")  # type: ignore[no-any-return]


def evolve(
    objectives: Objectives,
    surrogate: Surrogate,
    directions: Floats,
    *,
    start: Genes,
    population: int,
    generations: int,
    seed: int,
) -> Genes:
    """Run NSGA-III and return the distinct canonical genes [N, G] of its last population.

    ``start`` [K, G] (the archive's best) seeds the first population; random draws fill it up. Operators
    and rates are NAT2's: two-point crossover 0.9, integer polynomial mutation with eta 1.
    """
    rng = np.random.default_rng(seed)
    encoding = objectives.encoding
    first = np.concatenate([start, uniform_depth_genes(encoding, rng, population)])[:population]
    algorithm = NSGA3(
        ref_dirs=directions,
        pop_size=population,
        sampling=first,
        crossover=TwoPointCrossover(prob=0.9),
        mutation=PolynomialMutation(eta=1.0, vtype=float),
        repair=CanonicalGenes(),
        eliminate_duplicates=True,
    )
    result = minimize(
        SubNetworkProblem(objectives, surrogate), algorithm, ("n_gen", generations), seed=seed, verbose=False
    )
    genes: Genes = np.unique(np.asarray(result.pop.get("X"), dtype=np.int64), axis=0)
    return genes
