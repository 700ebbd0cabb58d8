"""A whole network that was measured: for a table's calibration, or for its certificate."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nat2deploy.space.lowering import lower
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature

Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class NetworkEntry(BaseModel):
    """One network's measurement. ``held-out`` ones the calibration never saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: dict[str, Any]
    classes: Annotated[int, Field(ge=1, le=100_000)]
    role: Literal["calibration", "held-out"]
    median_ms: Milliseconds
    p95_ms: Milliseconds
    p99_ms: Milliseconds
    ci_low_ms: Milliseconds
    ci_high_ms: Milliseconds
    samples: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.ci_low_ms <= self.median_ms <= self.ci_high_ms:
            raise ValueError("the median lies outside its confidence interval")
        if not self.median_ms <= self.p95_ms <= self.p99_ms:
            raise ValueError("median, 95th and 99th percentile are not in ascending order")
        return self

    def signatures(self, space: SearchSpace) -> list[BlockSignature]:
        """Return everything of the network that costs something.

        Raises:
            UserError: the architecture is not of ``space``.
        """
        return lower(space, parse_architecture(space, self.architecture), self.classes)

    def scaled(self, factor: float) -> NetworkEntry:
        """Return the measurement as it would be on a machine ``factor`` times as slow."""
        names = ("median_ms", "p95_ms", "p99_ms", "ci_low_ms", "ci_high_ms")
        return self.model_copy(update={name: factor * getattr(self, name) for name in names})
