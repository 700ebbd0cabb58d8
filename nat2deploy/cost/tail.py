"""Percentiles of a network's latency, from its median.

What makes a call slower than the median is the machine, not the architecture: interruptions of a fixed
length, and frequency and caches in proportion to the run. So a percentile is predicted as
``median × (1 + share) + extra``, fitted to the networks that the calibration was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Percentile(BaseModel):
    """``median × (1 + share) + extra_ms``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: NonNegative
    extra_ms: NonNegative


class Tail(BaseModel):
    """The 95th and 99th percentile of a network's calls."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p95: Percentile
    p99: Percentile


def fit_tail(medians_ms: Sequence[float], p95_ms: Sequence[float], p99_ms: Sequence[float]) -> Tail:
    """Fit the tail to measured networks, each [networks] in ms; errors count relative to the median."""
    medians = np.asarray(medians_ms, dtype=np.float64)
    return Tail(
        p95=_fit(medians, np.asarray(p95_ms, dtype=np.float64)),
        p99=_fit(medians, np.asarray(p99_ms, dtype=np.float64)),
    )


def at_percentile(percentile: Percentile, median_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predict the percentile of networks from their medians [N], in ms."""
    at: NDArray[np.float64] = (1 + percentile.share) * median_ms + percentile.extra_ms
    return at


def _fit(medians_ms: NDArray[np.float64], wanted_ms: NDArray[np.float64]) -> Percentile:
    """Non-negative least squares of the excess over the median, then once more without its outliers."""
    from scipy.optimize import nnls  # slow to load; who only reads tables needs none

    excess = np.maximum(wanted_ms / medians_ms - 1, 0.0)
    terms = np.stack([np.ones_like(medians_ms), 1 / medians_ms], axis=1)
    kept = np.ones(len(medians_ms), dtype=bool)
    found = np.zeros(2)
    for _ in range(3):
        found, _ = nnls(terms[kept], excess[kept])
        off = np.abs(terms @ found - excess)
        # A network that was disturbed says nothing of the others' tails; half of them are always kept.
        kept = off <= max(4 * 1.4826 * float(np.median(off)), 1e-6)
    return Percentile(share=float(found[0]), extra_ms=float(found[1]))
