"""What a bundle says that its network costs."""

from __future__ import annotations

from typing import Protocol


class CostsLike(Protocol):
    """Exact costs, and the predicted latency where there is a table."""

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations."""

    @property
    def params(self) -> int:
        """Number of weights."""

    @property
    def latency_ms(self) -> float | None:
        """Predicted latency, or None."""
