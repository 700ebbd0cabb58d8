"""What a set of latency samples says: median with a confidence interval, and the tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Samples = NDArray[np.float64]

_TAILS = 40  # 95 % confidence leaves one part in 40 on each side
# The fewest rounds for which the order statistics of a sample can hold the median with 95 % confidence:
# all five on one side of it has a chance of 2 × 0.5⁵ = 6 %, all six 3 %.
FEWEST_ROUNDS = 6
_REPLICATES = 400


@dataclass(frozen=True)
class Summary:
    """One candidate's latency in milliseconds.

    ``ci_low_ms`` and ``ci_high_ms`` hold the median with 95 % confidence (from six rounds on; with fewer
    they are what ``summarise_rounds`` says). ``samples`` counts calls, ``rounds`` the independent groups that
    they came in.
    """

    median_ms: float
    p95_ms: float
    p99_ms: float
    ci_low_ms: float
    ci_high_ms: float
    samples: int
    rounds: int = 1

    @property
    def latency(self) -> dict[str, Any]:
        """What a ``cost.measured.MeasuredLatency`` holds, by field."""
        names = ("median_ms", "p95_ms", "p99_ms", "ci_low_ms", "ci_high_ms", "samples")
        return {name: getattr(self, name) for name in names}

    @property
    def relative_ci_width(self) -> float:
        """Width of the confidence interval as a share of the median."""
        return (self.ci_high_ms - self.ci_low_ms) / self.median_ms

    def within(self, precision: float) -> bool:
        """Whether both ends of the confidence interval lie within ``precision`` (0.01: 1 %) of the median."""
        reach = max(self.ci_high_ms - self.median_ms, self.median_ms - self.ci_low_ms)
        return reach <= precision * self.median_ms


def summarise(samples: ArrayLike) -> Summary:
    """Summarise independent samples in ms (at least one, all positive and finite).

    Raises:
        ValueError: no samples, or one that is not a positive number.
    """
    values = _checked(samples)
    return _summary(values, values)


def summarise_rounds(rounds: Sequence[ArrayLike], *, noise: float = 0.0) -> Summary:
    """Summarise samples in ms that were taken in rounds, one array a round.

    Calls of one round follow each other within milliseconds and share the clock frequency, the cache contents
    and the neighbours of that moment; taken as independent they would give an interval several times too
    narrow. So each round counts once, by its median, and the median and its interval are those of the round
    medians. The tail is read off all calls.

    Fewer than six rounds cannot say how far their medians scatter, one round says nothing at all. There the
    interval holds the round medians, the interval of all calls taken as independent, and what ``noise`` leads
    to expect: twice its standard error.

    Args:
        rounds: at least one, none empty.
        noise: relative standard deviation of one round's median, as known from elsewhere.

    Raises:
        ValueError: no rounds, an empty one, or a sample that is not a positive number.
    """
    checked = [_checked(samples) for samples in rounds]
    if not checked:
        raise ValueError("no rounds to summarise")
    calls = np.concatenate(checked)
    found = _summary(np.array([np.median(samples) for samples in checked]), calls)
    if len(checked) >= FEWEST_ROUNDS:
        return found
    low, high = median_interval(calls)
    reach = 1 + 2 * noise / math.sqrt(len(checked))
    return replace(
        found,
        ci_low_ms=min(found.ci_low_ms, low, found.median_ms / reach),
        ci_high_ms=max(found.ci_high_ms, high, found.median_ms * reach),
    )


def percentile_intervals(
    rounds: Sequence[Samples], percentages: Sequence[float]
) -> list[tuple[float, float]]:
    """Return 95 % intervals of percentiles of all calls, by drawing whole rounds with replacement.

    Calls of one round are not independent, so the bootstrap draws rounds (the cluster bootstrap: Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 3.8); the same rounds give the same
    intervals. Each holds the percentile of all calls as ``Summary`` has it.
    """
    calls = np.concatenate(rounds)
    order = np.argsort(calls, kind="stable")
    round_of = np.repeat(np.arange(len(rounds)), [len(samples) for samples in rounds])[order]
    ordered = calls[order]
    shares = np.array(percentages) / 100
    drawn = np.random.default_rng(0).multinomial(len(rounds), [1 / len(rounds)] * len(rounds), _REPLICATES)
    found = np.empty((_REPLICATES, len(shares)))
    for index, times in enumerate(drawn):
        counted = np.cumsum(times[round_of])
        found[index] = ordered[np.searchsorted(counted, shares * counted[-1])]
    low, high = np.percentile(found, (2.5, 97.5), axis=0)
    points = np.percentile(calls, percentages)
    return [
        (float(min(low[index], point)), float(max(high[index], point))) for index, point in enumerate(points)
    ]


def median_interval(values: Samples) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median by order statistics (no distribution assumed).

    The ranks come from the binomial count of values below the median (David and Nagaraja, Order Statistics,
    2003, section 7.1). With fewer than six values it is the extremes, which hold it less often.
    """
    ordered = np.sort(values)
    rank = _rank(len(ordered))
    return float(ordered[rank - 1]), float(ordered[-rank])


def relative_spread(values: Samples) -> float:
    """Return a robust relative standard deviation: 1.4826 × median absolute deviation / median."""
    centre = float(np.median(values))
    return 1.4826 * float(np.median(np.abs(values - centre))) / centre


@lru_cache(maxsize=4096)
def _rank(count: int) -> int:
    """The 2.5 % quantile of the number of values below the median, at least 1; exact, in whole numbers."""
    quantile, ways, below = 0, 1, 1
    while below * _TAILS < 2**count:
        quantile += 1
        ways = ways * (count - quantile + 1) // quantile  # of choosing `quantile` out of `count`
        below += ways
    return max(quantile, 1)


def _summary(independent: Samples, calls: Samples) -> Summary:
    median = float(np.median(independent))
    low, high = median_interval(independent)
    p95, p99 = (float(value) for value in np.percentile(calls, (95, 99)))
    # With rounds of very different sizes the tail of all calls could fall below the median of the rounds.
    p95 = max(p95, median)
    return Summary(median, p95, max(p99, p95), low, high, len(calls), len(independent))


def _checked(samples: ArrayLike) -> Samples:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"samples must be a list of at least one number, not of shape {values.shape}")
    if not np.all(np.isfinite(values)) or values.min() <= 0:
        raise ValueError("samples must be positive and finite, in ms")
    return values
