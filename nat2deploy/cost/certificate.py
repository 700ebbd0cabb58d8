"""The certificate of a latency table: its error on whole networks that it never saw."""

from __future__ import annotations

import datetime
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.errors import UserError

MAX_NOISE = 0.03
"""Relative noise above which nothing is certified: errors of that size would be the machine's."""
FEWEST_NETWORKS = 4

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Correlation = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class Certificate(BaseModel):
    """Predicted against measured latency of held-out networks; errors are shares of the measured latency.

    ``mape`` is the mean absolute error, ``bias`` the mean signed error (positive: predicted too slow),
    ``within_5pct`` the share of networks at most 5 % off; ``noise`` is the measurement's own relative noise,
    below which no error can be told. ``p95_mape`` and ``p99_mape`` are the mean absolute errors of the
    percentiles that a table with a tail predicts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: Annotated[int, Field(ge=FEWEST_NETWORKS)]
    mape: Error
    within_2pct: Share
    within_5pct: Share
    within_10pct: Share
    spearman: Correlation
    kendall: Correlation
    bias: Annotated[float, Field(allow_inf_nan=False)]
    max_error: Error
    noise: Annotated[float, Field(ge=0, le=MAX_NOISE, allow_inf_nan=False)]
    date: datetime.date
    p95_mape: Error | None = None
    p99_mape: Error | None = None


def certify(predicted_ms: ArrayLike, measured_ms: ArrayLike, *, noise: float) -> Certificate:
    """Compare predictions [networks] with measurements [networks], both in ms, dated today.

    Raises:
        UserError: fewer than four networks, ``noise`` (relative, of the measurement) above 3 %, or
            predictions of zero or less.
        ValueError: the two differ in length, or measurements are something else than positive numbers.
    """
    predicted = np.asarray(predicted_ms, dtype=np.float64)
    measured = np.asarray(measured_ms, dtype=np.float64)
    if predicted.shape != measured.shape or predicted.ndim != 1:
        raise ValueError(
            f"predicted {predicted.shape} and measured {measured.shape} must be lists of one length"
        )
    if len(measured) < FEWEST_NETWORKS:
        raise UserError(
            f"a certificate needs {FEWEST_NETWORKS} networks or more, not {len(measured)}; measure more"
        )
    if not (np.isfinite(measured) & (measured > 0)).all():
        raise ValueError("latencies must be positive and finite, in ms")
    if not noise <= MAX_NOISE:
        raise UserError(
            f"no certificate: the machine's noise is {noise:.1%}, above {MAX_NOISE:.0%}; "
            "stop other work on it and profile again"
        )
    if not (np.isfinite(predicted) & (predicted > 0)).all():
        raise UserError(
            "no certificate: networks are predicted to take no time at all, so what was measured of blocks "
            "and of networks does not fit together; profile again"
        )
    from scipy.stats import kendalltau, spearmanr  # slow to load; who only reads tables needs none

    signed = predicted / measured - 1
    errors = np.abs(signed)
    constant = np.ptp(predicted) == 0 or np.ptp(measured) == 0  # no order to agree on
    return Certificate(
        networks=len(measured),
        mape=float(errors.mean()),
        within_2pct=float(np.mean(errors <= 0.02)),
        within_5pct=float(np.mean(errors <= 0.05)),
        within_10pct=float(np.mean(errors <= 0.10)),
        spearman=0.0 if constant else _clipped(spearmanr(predicted, measured).statistic),
        kendall=0.0 if constant else _clipped(kendalltau(predicted, measured).statistic),
        bias=float(signed.mean()),
        max_error=float(errors.max()),
        noise=noise,
        date=datetime.date.today(),
    )


def _clipped(correlation: float) -> float:
    return float(np.clip(correlation, -1, 1))  # rounding leaves 1.0000000000000002
