"""The first archive."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from nat2deploy.search.costs import Objectives
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes
from nat2deploy.space.sampling import uniform_depth_genes, uniform_genes


class Initialisation(ABC):
    """Draws the first archive; always holds the smallest and the largest architecture (NAT)."""

    def draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> list[Architecture]:
        """Return up to ``count`` distinct architectures, the cheapest of each budgeted metric among them."""
        encoding = objectives.encoding
        space = encoding.space
        found: dict[Architecture, None] = dict.fromkeys([space.smallest(), space.largest()])
        found.update((objectives.model.cheapest(b.metric)[0], None) for b in objectives.cost_budgets)
        for _ in range(20):
            for genes in self._draw(objectives, rng, count):
                if len(found) >= count:
                    return list(found)
                found.setdefault(encoding.decode(genes))
        return list(found)

    @abstractmethod
    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        """Return canonical genes [count, G]."""


class UniformGenes(Initialisation):
    """Uniform in the genes with *push* repair (NAT; Lu et al., 2021): mostly deep networks."""

    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        return objectives.encoding.repair(uniform_genes(objectives.encoding, rng, count), "push")


class UniformDepth(Initialisation):
    """Uniform in the architecture space (NAT2): every depth comes in a fair share."""

    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        return uniform_depth_genes(objectives.encoding, rng, count)


class WithinBudgets(Initialisation):
    """NAT2's draw, kept within the budgets and spread evenly over the first cost objective.

    Costs are exact before anything is evaluated, so no evaluation is spent outside the budgets. Where
    random draws find too few, the least violating ones fill up.
    """

    oversampling = 64

    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        pool = uniform_depth_genes(objectives.encoding, rng, count * self.oversampling)
        costs = objectives.costs(pool)
        over = np.maximum(objectives.cost_violations(costs), 0.0).sum(axis=1)
        inside = np.flatnonzero(over <= 0.0)
        if len(inside) < count:
            return pool[np.argsort(over, kind="stable")[:count]]
        axis = costs[objectives.metrics[0]][inside]
        steps = np.digitize(axis, np.linspace(axis.min(), axis.max(), count))
        _, spread = np.unique(steps, return_index=True)  # the first draw of each even step of cost
        rest = np.setdiff1d(np.arange(len(inside)), spread)
        chosen = np.concatenate([spread, rest[: count - len(spread)]])
        within: Genes = pool[inside[rng.permutation(chosen)]]
        return within


INITIALISATIONS: dict[str, type[Initialisation]] = {
    "uniform-genes": UniformGenes,
    "uniform-depth": UniformDepth,
    "within-budgets": WithinBudgets,
}
