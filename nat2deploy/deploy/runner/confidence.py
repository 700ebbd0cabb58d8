"""How sure an exit is of its answer: on the device, and where thresholds are fitted.

Without numpy: of ten classes its calls would take several times as long as the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def max_softmax(logits: Sequence[float]) -> float:
    """Return the largest probability."""
    most = max(logits)
    return 1.0 / sum([math.exp(one - most) for one in logits])


def margin(logits: Sequence[float]) -> float:
    """Return how far the largest probability lies above the next."""
    most, *rest = sorted(logits, reverse=True)
    total = sum([math.exp(one - most) for one in logits])
    return (1.0 - math.exp(rest[0] - most)) / total if rest else 1.0


def entropy(logits: Sequence[float]) -> float:
    """Return 1 minus the entropy as a share of the largest possible."""
    if len(logits) < 2:
        return 1.0
    most = max(logits)
    total, weighed = 0.0, 0.0
    for one in logits:
        below = one - most
        share = math.exp(below)
        total += share
        weighed += share * below
    nats = math.log(total) - weighed / total
    return min(max(1.0 - nats / math.log(len(logits)), 0.0), 1.0)


CONFIDENCES: dict[str, Callable[[Sequence[float]], float]] = {
    "max-softmax": max_softmax,
    "margin": margin,
    "entropy": entropy,
}
"""Measures by name: from the logits of an image's classes to 0 (not at all sure) to 1."""
