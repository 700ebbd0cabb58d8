"""The policies that choose a round's candidates from what was evolved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nat2deploy.plugins import Registry
from nat2deploy.search.expected import Passed, select_expected
from nat2deploy.search.gap_variance import select_even
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.subset import select_diverse
from nat2deploy.search.survival import Floats

Indices = NDArray[np.int64]


class SubsetSelection(ABC):
    """Chooses up to ``count`` rows that are worth an evaluation.

    With ``takes_visited`` rows are all that evolution looked at, and not its last population alone.
    """

    takes_visited = False

    def choose(
        self,
        objectives: Floats,
        violations: Floats,
        known: Floats,
        spread: Floats,
        count: int,
        *,
        seed: int,
        passed: Passed | None = None,
    ) -> Indices:
        """Return distinct indices of rows of predicted ``objectives`` [N, M].

        ``violations`` [N]: summed violations of budgets of cost, 0 is feasible. ``known`` [K, M]: the
        archive's front; with ``takes_visited`` also the largest error that budgets allow, at the least cost:
        a row that errs more adds nothing. ``spread`` [N]: the standard deviation of each predicted error,
        which is larger where the surrogate's members disagree. ``passed``: what is judged with the rows,
        which those that look at each row alone leave out of account.
        """
        if len(objectives) == 0:
            return np.empty(0, dtype=np.int64)
        return self._choose(objectives, violations, known, spread, count, seed)

    @abstractmethod
    def _choose(
        self, objectives: Floats, violations: Floats, known: Floats, spread: Floats, count: int, seed: int
    ) -> Indices:
        """Return the indices, of one row at least."""


class Greedy(SubsetSelection):
    """The farthest in cost from all chosen before, again and again.

    A share ``exploration`` of the candidates goes to where the surrogate's members disagree most, feasible
    rows first: what is learnt there mends the surrogate. A share ``exploitation`` goes to the lowest
    predicted errors, feasible rows first: gaps in cost leave few for the most accurate networks.
    """

    def __init__(self, exploration: float = 0.0, exploitation: float = 0.0) -> None:
        self.exploration = exploration
        self.exploitation = exploitation

    def _choose(
        self, objectives: Floats, violations: Floats, known: Floats, spread: Floats, count: int, seed: int
    ) -> Indices:
        over = np.maximum(violations, 0.0)
        exploring = round(self.exploration * count)
        exploiting = min(round(self.exploitation * count), count - exploring)
        accurate = np.lexsort((objectives[:, 0], over))[:exploiting]
        left = np.setdiff1d(np.arange(len(objectives)), accurate)
        diverse = select_diverse(
            objectives[left],
            violations[left],
            np.concatenate([known, objectives[accurate]]),
            count - exploring - len(accurate),
        )
        chosen = np.concatenate([accurate, left[diverse]])
        left = np.setdiff1d(left, chosen)
        unsure = left[np.lexsort((objectives[left, 0], -spread[left], over[left]))]
        return np.concatenate([chosen, unsure[:exploring]])


class Expected(SubsetSelection):
    """Those that are expected to add most hypervolume, one by one; feasible rows first: see ``expected``."""

    takes_visited = True

    def choose(
        self,
        objectives: Floats,
        violations: Floats,
        known: Floats,
        spread: Floats,
        count: int,
        *,
        seed: int,
        passed: Passed | None = None,
    ) -> Indices:
        """Return distinct indices, as the base has it; what rows pass counts for them."""
        if len(objectives) == 0:
            return np.empty(0, dtype=np.int64)
        return self._choose(objectives, violations, known, spread, count, seed, passed)

    def _choose(
        self,
        objectives: Floats,
        violations: Floats,
        known: Floats,
        spread: Floats,
        count: int,
        seed: int,
        passed: Passed | None = None,
    ) -> Indices:
        inside = np.flatnonzero(violations <= 0.0)
        if passed is not None:
            passed = passed.of(inside, len(objectives))
        rng = np.random.default_rng(seed)
        chosen = inside[select_expected(objectives[inside], spread[inside], known, count, rng, passed)]
        if len(chosen) == count:
            return chosen
        others = np.setdiff1d(np.arange(len(objectives)), inside)
        nearest = others[np.lexsort((objectives[others, 0], violations[others]))]
        return np.concatenate([chosen, nearest[: count - len(chosen)]])


class Even(SubsetSelection):
    """The authors' binary genetic algorithm over subsets: see ``gap_variance``."""

    def __init__(self, population: int = 500, generations: int = 200) -> None:
        self.population = population
        self.generations = generations

    def _choose(
        self, objectives: Floats, violations: Floats, known: Floats, spread: Floats, count: int, seed: int
    ) -> Indices:
        return select_even(
            objectives,
            violations,
            known,
            count,
            seed=seed,
            population=self.population,
            generations=self.generations,
        )


# Each is made with the settings; a plug-in's is a subclass that takes them.
SUBSETS: Registry[Callable[[SearchSettings], SubsetSelection]] = Registry(
    "subset",
    SubsetSelection,
    {
        "expected-improvement": lambda settings: Expected(),
        "greedy": lambda settings: Greedy(settings.exploration, settings.exploitation),
        "gap-variance": lambda settings: Even(settings.subset_population, settings.subset_generations),
    },
)
