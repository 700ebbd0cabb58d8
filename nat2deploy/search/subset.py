"""Which of the evolved architectures are worth an evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nat2deploy.search.survival import Floats


def select_diverse(objectives: Floats, violations: Floats, known: Floats, count: int) -> NDArray[np.int64]:
    """Indices of up to ``count`` rows of predicted ``objectives`` [N, M], good and far apart in cost.

    Feasible rows (``violations`` [N] of 0) come first. Whole non-dominated ranks are short-listed until they
    hold twice as many as needed; from these the row whose costs (columns 1 and on) are farthest from
    everything chosen and from the archive's front ``known`` [K, M] is taken, again and again. Where costs
    tie, the lower predicted error wins.
    """
    total = len(objectives)
    if total == 0:
        return np.empty(0, dtype=np.int64)
    rank = np.empty(total, dtype=np.int64)
    for level, front in enumerate(NonDominatedSorting().do(objectives)):
        rank[front] = level
    order = np.lexsort((objectives[:, 0], rank, np.maximum(violations, 0.0)))
    inside = int(np.sum(violations <= 0.0))
    pool = order[: max(inside, count)]  # no infeasible row while a feasible one is left
    if inside > 2 * count:  # whole ranks: cut inside one, only its dear end would be left
        pool = pool[rank[pool] <= rank[pool[2 * count - 1]]]
    costs = objectives[:, 1:]
    span = np.ptp(np.concatenate([costs[pool], known[:, 1:]]), axis=0)
    scaled = costs / np.where(span > 0, span, 1.0)
    reference = known[:, 1:] / np.where(span > 0, span, 1.0)
    nearest = np.full(total, np.inf)
    for row in reference:
        nearest = np.minimum(nearest, np.linalg.norm(scaled - row, axis=1))
    chosen: list[int] = []
    left = list(pool)
    while left and len(chosen) < count:
        distances = nearest[left]
        if not np.isfinite(distances).any():
            pick = left[0]
        else:
            pick = left[int(np.argmax(np.where(np.isfinite(distances), distances, -1.0)))]
        chosen.append(int(pick))
        left.remove(pick)
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[pick], axis=1))
    return np.array(chosen, dtype=np.int64)
