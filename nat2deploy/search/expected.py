"""Candidates by the hypervolume that they are expected to add."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nat2deploy.search.survival import Floats

POINTS = 512
SHORT_LIST = 600
BEYOND = 0.05
"""How far points go beyond the dearest row, as a share of the range: it would count for nothing else."""


class Passed(NamedTuple):
    """What rows pass at their exits and is judged with them: whose it is, predictions, standard deviations.

    ``owners`` [P] are indices of rows; ``objectives`` [P, M] and ``spread`` [P].
    """

    owners: NDArray[np.int64]
    objectives: Floats
    spread: Floats

    def of(self, rows: NDArray[np.int64], total: int) -> Passed:
        """What some of ``total`` rows pass, whose indices are then those in ``rows``."""
        place = np.full(total, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        kept = place[self.owners] >= 0
        return Passed(place[self.owners[kept]], self.objectives[kept], self.spread[kept])

    def levels(self) -> list[Passed]:
        """The same in parts, each with at most one of a row."""
        before = Counter[int]()
        level = np.empty(len(self.owners), dtype=np.int64)
        for index, owner in enumerate(self.owners.tolist()):
            level[index] = before[owner]
            before[owner] += 1
        parts = (level == number for number in range(max(before.values(), default=0)))
        return [Passed(self.owners[part], self.objectives[part], self.spread[part]) for part in parts]


def select_expected(
    objectives: Floats,
    spread: Floats,
    known: Floats,
    count: int,
    rng: np.random.Generator,
    passed: Passed | None = None,
) -> NDArray[np.int64]:
    """Indices of up to ``count`` rows of predicted ``objectives`` [N, M] that are likely to add most.

    Hypervolume is the error that a front saves, summed over all that a user may be ready to pay. So the
    expected improvement (Jones et al., 1998) of a row's error, known up to a standard deviation ``spread``
    [N], over the best one of the front ``known`` [K, M] is summed over points of cost, drawn evenly up to
    a little more than the dearest. The row with the largest sum is taken, the best error at each point is
    lowered by what is expected of it, and so on: rows of much the same cost and error are worth less after
    the first. What a row has ``passed`` adds to its worth what it improves beyond that.
    """
    if len(objectives) == 0:
        return np.empty(0, dtype=np.int64)
    errors, costs = objectives[:, 0], objectives[:, 1:]
    everything = np.concatenate([costs, known[:, 1:]])
    low, high = everything.min(axis=0), everything.max(axis=0)
    points = rng.uniform(low, high + BEYOND * (high - low), (POINTS, costs.shape[1]))
    best = np.full(len(points), max(errors.max(), known[:, 0].max(initial=0.0)))
    for row in known:
        best = np.where((row[1:] <= points).all(axis=1), np.minimum(best, row[0]), best)
    levels = [] if passed is None else passed.levels()
    rows = np.arange(len(errors))
    if len(rows) > SHORT_LIST:  # what follows takes memory for rows x points
        few = slice(None, None, POINTS // 64)
        worth = _gains(objectives, spread, levels, best[few], points[few]).sum(axis=1)
        rows = np.sort(np.lexsort((errors, -worth))[:SHORT_LIST])
        levels = [level.of(rows, len(errors)) for level in levels]
    chosen: list[int] = []
    left = np.ones(len(rows), dtype=np.bool_)
    for _ in range(min(count, len(rows))):
        gains = _gains(objectives[rows], spread[rows], levels, best, points)
        worth = np.where(left, gains.sum(axis=1), -1.0)
        pick = int(np.lexsort((errors[rows], -worth))[0])  # of equals the lowest error
        chosen.append(int(rows[pick]))
        left[pick] = False
        best = best - gains[pick]
    return np.array(chosen, dtype=np.int64)


def _gains(
    objectives: Floats, spread: Floats, levels: Sequence[Passed], best: Floats, points: Floats
) -> Floats:
    """Expected improvement [N, P] of rows, and of what they pass beyond them, at points."""
    gains = _improvement(objectives[:, 0], spread, objectives[:, 1:], best[None], points)
    for owners, passed, deviation in levels:
        gains[owners] += _improvement(passed[:, 0], deviation, passed[:, 1:], best - gains[owners], points)
    return gains


def _improvement(errors: Floats, spread: Floats, costs: Floats, best: Floats, points: Floats) -> Floats:
    """Expected improvement [N, P] of rows over ``best`` [N or 1, P] at points [P, costs].

    0 where a row costs more than the point.
    """
    gap = best - errors[:, None]
    deviation = np.maximum(spread, 1e-9)[:, None]
    z = gap / deviation
    expected = gap * ndtr(z) + deviation * np.exp(-0.5 * np.square(z)) / np.sqrt(2.0 * np.pi)
    affordable = (costs[:, None] <= points[None]).all(axis=2)
    found: Floats = np.where(affordable, np.maximum(expected, 0.0), 0.0)
    return found
