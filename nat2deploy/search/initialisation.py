"""The first archive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nat2deploy.plugins import Registry
from nat2deploy.search.costs import Floats, Objectives
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding, Repair
from nat2deploy.space.sampling import uniform_depth_genes, uniform_genes


class Initialisation(ABC):
    """Draws the first archive; always holds the smallest and the largest architecture (NAT).

    ``repair`` closes holes inside a stage of what is drawn.
    """

    def __init__(self, repair: Repair = "fill") -> None:
        self.repair: Repair = repair

    def draw(
        self,
        objectives: Objectives,
        rng: np.random.Generator,
        count: int,
        start: Iterable[Architecture] = (),
    ) -> list[Architecture]:
        """Return up to ``count`` distinct architectures: ``always_drawn``, then ``start``, then draws."""
        encoding = objectives.encoding
        found: dict[Architecture, None] = dict.fromkeys([*always_drawn(objectives), *start])
        for _ in range(20):
            if len(found) >= count:
                break
            for genes in self._draw(objectives, rng, count):
                if len(found) >= count:
                    return list(found)
                found.setdefault(encoding.decode(genes))
        return list(found)

    @abstractmethod
    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        """Return canonical genes [count, G]."""


def always_drawn(objectives: Objectives) -> list[Architecture]:
    """The smallest and the largest architecture (NAT), and the cheapest of each budgeted metric."""
    cheapest = [objectives.model.cheapest(budget.metric)[0] for budget in objectives.cost_budgets]
    return list(dict.fromkeys([*smallest_and_largest(objectives.encoding), *cheapest]))


def smallest_and_largest(encoding: IntegerEncoding) -> list[Architecture]:
    """The two architectures, each in every precision that there is to choose from."""
    ends = [encoding.space.smallest(), encoding.space.largest()]
    return [replace(end, precision=precision) for precision in encoding.precisions or (None,) for end in ends]


class UniformGenes(Initialisation):
    """Uniform in the genes, with *push* repair in NAT (Lu et al., 2021): mostly deep networks."""

    def __init__(self, repair: Repair = "push") -> None:
        super().__init__(repair)

    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        return objectives.encoding.repair(uniform_genes(objectives.encoding, rng, count), self.repair)


class UniformDepth(Initialisation):
    """Uniform in the architecture space (NAT2): every depth comes in a fair share."""

    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        return uniform_depth_genes(objectives.encoding, rng, count, self.repair)


class WithinBudgets(Initialisation):
    """NAT2's draw, kept within the budgets and spread evenly over the first cost objective.

    Costs are exact before anything is evaluated, so no evaluation is spent outside the budgets. Where
    random draws find too few, the least violating ones fill up.
    """

    oversampling = 64

    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        pool = uniform_depth_genes(objectives.encoding, rng, count * self.oversampling, self.repair)
        costs = objectives.costs(pool)
        over = np.maximum(objectives.cost_violations(costs), 0.0).sum(axis=1)
        inside = np.flatnonzero(over <= 0.0)
        if len(inside) < count:
            return pool[np.argsort(over, kind="stable")[:count]]
        axes = np.stack([costs[metric][inside] for metric in objectives.axes], axis=1)
        spread = self._spread(axes, count)
        rest = np.setdiff1d(np.arange(len(inside)), spread)
        chosen = np.concatenate([spread, rest[: count - len(spread)]])
        within: Genes = pool[inside[rng.permutation(chosen)]]
        return within

    def _spread(self, costs: Floats, count: int) -> NDArray[np.int64]:
        """Indices of at most ``count`` rows of costs [N, axes] that lie apart."""
        return _first_of_each_step(costs[:, 0], count)


class Stratified(WithinBudgets):
    """As within budgets, but spread over all cost axes: each gets an equal share of the draws."""

    def _spread(self, costs: Floats, count: int) -> NDArray[np.int64]:
        axes = costs[:, :count].T  # each of as many as there are draws
        shares = np.diff(np.linspace(0, count, len(axes) + 1).astype(np.int64))
        picked = [_first_of_each_step(axis, share) for axis, share in zip(axes, shares, strict=True)]
        return np.array(list(dict.fromkeys(np.concatenate(picked).tolist())), dtype=np.int64)


def _first_of_each_step(costs: Floats, count: int) -> NDArray[np.int64]:
    """The first row of each of ``count`` even steps of costs [N]."""
    steps = np.digitize(costs, np.linspace(costs.min(), costs.max(), count))
    _, first = np.unique(steps, return_index=True)
    return np.asarray(first, dtype=np.int64)


INITIALISATIONS: Registry[type[Initialisation]] = Registry(
    "initialisation",
    Initialisation,
    {
        "uniform-genes": UniformGenes,
        "uniform-depth": UniformDepth,
        "within-budgets": WithinBudgets,
        "stratified": Stratified,
    },
)
