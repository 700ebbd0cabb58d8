"""Confidence intervals that several parts state."""

from __future__ import annotations

import math


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share that was seen in ``count`` trials."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must push neither end past the share itself.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
