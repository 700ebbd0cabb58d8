"""When to stop: a threshold an exit, fitted on validation images for an accuracy or for an expected cost.

An image leaves at the first exit whose confidence reaches its threshold, as in BranchyNet (Teerapittayanon et
al., 2016). Thresholds are chosen together: MSDNet's budgeted batch classification (Huang et al., 2018) lets a
fixed share leave at each exit, which is one of the choices looked at here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nat2deploy.deploy.runner.confidence import CONFIDENCES

Array = NDArray[np.float64]

# How many combinations of the thresholds before the last are tried; the last takes every value each time.
_COMBINATIONS = 256
_MOST_QUANTILES = 48
_SWEEP_POINTS = 24
_CUTS_OF_SWEEP = 64
_SLACK = 1e-12


@dataclass(frozen=True)
class Goal:
    """What thresholds are fitted for: one of the two is given.

    With ``lowest_top1`` (a share) the expected cost is made as low as that accuracy allows, with
    ``highest_cost`` (in the costs' unit) accuracy as high as that expected cost allows.
    """

    lowest_top1: float | None = None
    highest_cost: float | None = None


@dataclass(frozen=True)
class Point:
    """A choice of thresholds with what it does on the images that it was fitted on.

    Attributes:
        thresholds: one an exit but the last; None: nobody leaves there.
        top1: share of the images answered rightly.
        shares: of the images that leave at each exit.
        cost: expected, in the costs' unit.
    """

    thresholds: tuple[float | None, ...]
    top1: float
    shares: tuple[float, ...]
    cost: float


@dataclass(frozen=True)
class Fitted:
    """The measure of confidence, what was chosen, and the trade-off that it was chosen from.

    ``best`` is None where no thresholds reach the target; ``nearest`` then comes closest to it. ``sweep``
    holds non-dominated points, cheapest first.
    """

    confidence: str
    best: Point | None
    nearest: Point
    sweep: tuple[Point, ...]


def confidences_of(answers: NDArray[np.float32], confidence: str) -> Array:
    """Return how sure exits are, by a measure's name: logits [exits, N, classes] to [exits, N]."""
    measure = CONFIDENCES[confidence]
    found = [[measure(logits) for logits in exit_.tolist()] for exit_ in answers]
    return np.array(found, np.float64).reshape(answers.shape[:2])


def leave(confidences: Array, thresholds: Sequence[float | None]) -> NDArray[np.int64]:
    """Return at which exit each image leaves, from 0.

    Args:
        confidences: of each exit but the last, [exits - 1, N].
        thresholds: of the same exits; None: nobody leaves there.
    """
    exits = np.full(confidences.shape[1], len(thresholds))
    for index in reversed(range(len(thresholds))):
        threshold = thresholds[index]
        if threshold is not None:
            exits[confidences[index] >= threshold] = index
    return exits


def fit_thresholds(
    answers: NDArray[np.float32],
    targets: NDArray[np.int64],
    costs: Sequence[float],
    target: Goal,
    *,
    confidence: str | None = None,
    batch: int = 1,
) -> Fitted:
    """Fit the thresholds of all exits but the last on labelled images, for a target that then holds on them.

    All combinations of quantiles are tried for the exits before the last but one, with every value that tells
    images apart for that one; then each threshold in turn takes its best value, until none gets better. With
    two exits the result is the best there is; with one there is nothing to fit. The same input gives the same
    result.

    Args:
        answers: logits that each exit would answer with, [exits, N, classes].
        targets: the classes, [N].
        costs: of all that is computed up to each exit, rising.
        target: to be reached.
        confidence: a measure's name; the one that reaches the target best when not given.
        batch: as of ``deploy.runner.expected``.
    """
    right = answers.argmax(axis=2) == targets
    tried = []
    for name in [confidence] if confidence else CONFIDENCES:
        confidences = confidences_of(answers[:-1], name)
        tried.append(_Fit(confidences, right, np.asarray(costs, np.float64), batch).fit(name, target))
    return min(tried, key=lambda fitted: _order(fitted.nearest, target))


def better(one: Point, other: Point, target: Goal) -> bool:
    """Whether ``one`` reaches the target better than ``other``."""
    return _order(one, target) < _order(other, target)


def _order(point: Point, target: Goal) -> tuple[float, float, float]:
    """Lower is better: first how far the target is missed, then what is made small."""
    if target.highest_cost is not None:
        return max(point.cost - target.highest_cost - _SLACK, 0.0), -point.top1, point.cost
    assert target.lowest_top1 is not None
    return max(target.lowest_top1 - point.top1 - _SLACK, 0.0), point.cost, -point.top1


class _Fit:
    """Looks for thresholds by one measure: confidences [exits - 1, N], right [exits, N], costs [exits]."""

    def __init__(self, confidences: Array, right: NDArray[np.bool_], costs: Array, batch: int) -> None:
        self.confidences = confidences
        self.right = right
        self.costs = costs
        self.batch = batch
        self.exits, self.images = right.shape

    def fit(self, name: str, target: Goal) -> Fitted:
        if self.exits == 1:
            only = Point((), float(self.right[0].mean()), (1.0,), float(self.costs[0]))
            return Fitted(name, only if _order(only, target)[0] <= 0.0 else None, only, (only,))
        free = self.exits - 2
        count = max(3, min(int(_COMBINATIONS ** (1 / free)), _MOST_QUANTILES)) if free else 0
        grid = [self._quantiles(index, count) for index in range(free)]
        best: Point | None = None
        seen: list[Point] = []
        for chosen in itertools.product(*grid):
            points = _Points(self, [*chosen, None], free)
            found = points.best(target)
            if best is None or _order(found, target) < _order(best, target):
                best = found
            seen += points.some(_CUTS_OF_SWEEP)
        assert best is not None
        best = self._refined(best, target)
        met = _order(best, target)[0] <= 0.0
        return Fitted(name, best if met else None, best, _front([*seen, best]))

    def _quantiles(self, index: int, count: int) -> list[float | None]:
        """From all leave to none leaves, by equal numbers of images."""
        ordered = np.sort(self.confidences[index])
        places = np.linspace(0, self.images, count - 1, endpoint=False).astype(int)[1:]
        middles = {_between(ordered[place - 1], ordered[place]) for place in places}
        return [0.0, *sorted(middles - {0.0}), None]

    def _refined(self, best: Point, target: Goal) -> Point:
        better = True
        while better:
            better = False
            for index in range(self.exits - 1):
                found = _Points(self, list(best.thresholds), index).best(target)
                if _order(found, target) < _order(best, target):
                    best, better = found, True
        return best


class _Points:
    """Every choice for one exit's threshold, the others' as given: from none leaves there to all do."""

    def __init__(self, fit: _Fit, thresholds: list[float | None], index: int) -> None:
        self._fit, self._thresholds, self._index = fit, thresholds, index
        stay = [None if place == index else one for place, one in enumerate(thresholds)]
        exits = leave(fit.confidences, stay)
        reach = np.flatnonzero(exits > index)
        order = reach[np.argsort(-fit.confidences[index, reach], kind="stable")]
        self._ordered = fit.confidences[index, order]
        # So many of them leave: only where the next is less sure can a threshold lie between.
        cuts = np.flatnonzero(np.diff(self._ordered) < 0) + 1
        ends = [0] if len(order) == 0 else [0, len(order)]
        self._cuts = np.unique(np.concatenate([ends, cuts])).astype(np.int64)
        right = fit.right[exits, np.arange(fit.images)]
        gained = np.cumsum(fit.right[index, order].astype(np.int64) - right[order])
        self.correct = right.sum() + np.concatenate([[0], gained])[self._cuts]
        counts = np.bincount(exits, minlength=fit.exits)
        gone = np.zeros((len(order) + 1, fit.exits), np.int64)
        np.cumsum(np.eye(fit.exits, dtype=np.int64)[exits[order]], axis=0, out=gone[1:])
        self._counts = counts - gone[self._cuts]
        self._counts[:, index] += self._cuts
        left = (np.cumsum(self._counts, axis=1) / fit.images) ** fit.batch
        self.costs = np.diff(left, prepend=0.0, axis=1) @ fit.costs

    def best(self, target: Goal) -> Point:
        """The choice that reaches the target best; of equal ones that where the fewest leave."""
        top1 = self.correct / self._fit.images
        if target.highest_cost is not None:
            missed = np.maximum(self.costs - target.highest_cost - _SLACK, 0.0)
            order = np.lexsort((self.costs, -top1, missed))
        else:
            assert target.lowest_top1 is not None
            missed = np.maximum(target.lowest_top1 - top1 - _SLACK, 0.0)
            order = np.lexsort((-top1, self.costs, missed))
        return self._point(int(order[0]))

    def some(self, count: int) -> list[Point]:
        """So many of the choices, evenly over the images that leave."""
        places = np.unique(np.linspace(0, len(self._cuts) - 1, count).astype(int))
        # Dominated by one beside it, most are not worth keeping.
        kept: list[Point] = []
        most = -1
        for place in sorted(places, key=lambda place: (self.costs[place], -self.correct[place])):
            if self.correct[place] > most:
                most = int(self.correct[place])
                kept.append(self._point(int(place)))
        return kept

    def _point(self, place: int) -> Point:
        cut, values = int(self._cuts[place]), self._ordered
        threshold: float | None
        if cut == 0:
            threshold = None
        else:
            # All that reach this exit leave: so would any that comes.
            threshold = 0.0 if cut == len(values) else _between(values[cut], values[cut - 1])
        thresholds = [*self._thresholds]
        thresholds[self._index] = threshold
        return Point(
            tuple(thresholds),
            float(self.correct[place] / self._fit.images),
            tuple(float(n) for n in self._counts[place] / self._fit.images),
            float(self.costs[place]),
        )


def _between(low: float, high: float) -> float:
    """A threshold in the middle, so that another machine's rounding changes nothing; never above ``high``."""
    middle = (float(low) + float(high)) / 2
    return middle if low < middle else float(high)


def _front(points: Sequence[Point]) -> tuple[Point, ...]:
    """The non-dominated points, cheapest first, thinned out evenly over their costs."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -one.top1)):
        if not front or point.top1 > front[-1].top1:
            front.append(point)
    if len(front) <= _SWEEP_POINTS:
        return tuple(front)
    ends = front[0].cost, front[-1].cost
    kept: dict[int, Point] = {}
    for point in front:  # of each interval the most accurate
        kept[math.floor((_SWEEP_POINTS - 1) * (point.cost - ends[0]) / (ends[1] - ends[0]))] = point
    return tuple(kept.values())
