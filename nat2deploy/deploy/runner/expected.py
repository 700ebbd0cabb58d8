"""What early exits cost on average."""

from __future__ import annotations

from collections.abc import Sequence


def expected_cost(shares: Sequence[float], costs: Sequence[float], batch: int = 1) -> float:
    """Return the mean cost of a batch that goes on until its last image has left.

    Args:
        shares: of the images that leave at each exit.
        costs: of all that is computed up to each exit.
        batch: images that are drawn independently; of one this is the mean over the images.
    """
    total, left, before = 0.0, 0.0, 0.0
    for place, cost in enumerate(costs):
        left = min(left + shares[place], 1.0)
        total += (left**batch - before) * cost
        before = left**batch
    return total
