"""A fixed workload, timed all through a measurement: it tells the machine's noise from the candidates'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nat2deploy.measure.statistics import Samples, relative_spread

REFERENCE_INPUT = 0.5
"""Every value of the reference workload's input."""
# Look i is the last one before a visit, so two more before it and three after it lie evenly around.
_BEFORE, _AFTER = 2, 3


@dataclass
class ReferenceLog:
    """Looks at the reference workload, in order of time.

    Args:
        time_once: settles and times the reference, and returns the median in ms; None: there is no
            reference, the machine counts as quiet and its noise is not known.
    """

    time_once: Callable[[], float] | None
    looks_ms: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)

    def look(self, round_index: int) -> int:
        """Time the reference now, in round ``round_index``; return the look's index."""
        self.looks_ms.append(self.time_once() if self.time_once is not None else 1.0)
        self.rounds.append(round_index)
        return len(self.looks_ms) - 1

    def disturbance(self) -> Samples:
        """Return how much slower than quiet the machine was between look i and i + 1, shape ``[looks]``.

        0.05 means that one of the two looks was 5 % above the quiet level: the lower quartile of all looks,
        because other load only ever slows, and may do so for most of the time.
        """
        looks = np.array(self.looks_ms)
        excess: Samples = looks / np.percentile(looks, 25) - 1
        later: Samples = np.append(excess[1:], excess[-1])
        return np.maximum(excess, later)

    def slowness(self) -> Samples:
        """Return how long the reference took around look i, as a multiple of its overall median, ``[looks]``.

        A clock that changes for minutes changes it for good, a disturbance of one or two looks does not: it
        is the median over three looks before and three after.
        """
        looks = np.array(self.looks_ms)
        padded = np.pad(looks, (_BEFORE, _AFTER), mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, _BEFORE + 1 + _AFTER)
        found: Samples = np.median(around, axis=1) / np.median(looks)
        return found

    def median_ms(self) -> float:
        """Return the median of all looks in ms."""
        return float(np.median(self.looks_ms))

    def noise(self) -> float:
        """Return the relative repeat noise of the looks (robust standard deviation)."""
        return relative_spread(np.array(self.looks_ms))

    def drift(self) -> float:
        """Return the largest relative deviation of a round's median look from the median of all looks."""
        looks, rounds = np.array(self.looks_ms), np.array(self.rounds)
        medians = np.array([np.median(looks[rounds == index]) for index in np.unique(rounds)])
        return float(np.max(np.abs(medians / np.median(looks) - 1)))


def keep_quiet(disturbance: Samples, tolerance: float) -> NDArray[np.bool_]:
    """Return which visits to keep: those disturbed by at most ``tolerance``, but never fewer than half.

    Without that bound a machine that is never quiet would never be measured; the least disturbed half stays.
    """
    keep = disturbance <= tolerance
    least = (len(disturbance) + 1) // 2
    if keep.sum() < least:
        keep = np.zeros(len(disturbance), dtype=np.bool_)
        keep[np.argsort(disturbance, kind="stable")[:least]] = True
    return keep
