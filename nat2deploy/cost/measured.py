"""One measured latency, as tables and devices write it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Nothing takes less than a picosecond or more than eleven days; beyond that ratios overflow.
Milliseconds = Annotated[float, Field(ge=1e-9, le=1e9)]


class MeasuredLatency(BaseModel):
    """Median with its 95 % confidence interval, the tail, and the number of calls behind them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds
    ci_low_ms: Milliseconds
    ci_high_ms: Milliseconds
    samples: Annotated[int, Field(ge=1, le=10**12)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.ci_low_ms <= self.median_ms <= self.ci_high_ms:
            raise ValueError("the median lies outside its confidence interval")
        if not self.median_ms <= self.p95_ms <= self.p99_ms:
            raise ValueError("median, 95th and 99th percentile are not in ascending order")
        return self

    def scaled(self, factor: float) -> Self:
        """Return the measurement as it would be on a machine ``factor`` times as slow."""
        names = ("median_ms", "p95_ms", "p99_ms", "ci_low_ms", "ci_high_ms")
        return self.model_copy(update={name: factor * getattr(self, name) for name in names})
