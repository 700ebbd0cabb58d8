"""The networks of a front that cost much to leave: its knees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from nat2deploy.search.survival import Floats

EPSILON = 0.125
"""Radius of a neighbourhood, in units of the front's range (NAT2)."""


def tradeoffs(objectives: Floats, epsilon: float = EPSILON) -> Floats:
    """How much a move to any neighbour loses per gain, at least [N], of a front's objectives [N, M].

    Rachmawati and Srinivasan, "Multiobjective Evolutionary Algorithm With Controllable Focus on the Knees of
    the Pareto Front" (2009), as pymoo's ``HighTradeoffPoints`` has it. Objectives are scaled to the front's
    range first. Neighbours lie within ``epsilon``, or are the 2 M nearest where those are fewer. Rows
    without a neighbour that is better in anything get minus infinity.
    """
    span = np.ptp(objectives, axis=0)
    scaled = (objectives - objectives.min(axis=0)) / np.where(span > 0, span, 1.0)
    distances = cdist(scaled, scaled)
    total, width = objectives.shape
    fewest = min(2 * width, total)
    found = np.full(total, -np.inf)
    for row in range(total):
        near = np.flatnonzero(distances[row] <= epsilon)
        if len(near) < fewest:
            near = np.argsort(distances[row], kind="stable")[: fewest + 1]
        moves = scaled[near] - scaled[row]
        gain = np.maximum(0.0, -moves).sum(axis=1)
        loss = np.maximum(0.0, moves).sum(axis=1)
        if (gain > 0).any():
            found[row] = (loss[gain > 0] / gain[gain > 0]).min()
    return found


def high_tradeoff(objectives: Floats, count: int, epsilon: float = EPSILON) -> NDArray[np.int64]:
    """Indices of the ``count`` rows of a front's objectives [N, M] with the highest trade-offs, ascending.

    Fewer come back of a smaller front, and none where a single objective leaves nothing to trade.
    """
    if len(objectives) < 2 or objectives.shape[1] < 2:
        return np.empty(0, dtype=np.int64)
    found = tradeoffs(objectives, epsilon)
    order = np.argsort(-found, kind="stable")[:count]
    return np.sort(order[np.isfinite(found[order])])
