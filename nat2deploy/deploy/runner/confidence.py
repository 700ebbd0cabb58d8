"""How sure an exit is of its answer, by numpy alone: on the device, and where thresholds are fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[Any]


def max_softmax(logits: Values) -> Values:
    """Return the largest probability: of [N, classes] one in 0 to 1 an image, [N]."""
    return 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def margin(logits: Values) -> Values:
    """Return how far the largest probability lies above the next: [N, classes] to [N], 0 to 1."""
    top = np.partition(logits, -2, axis=1)[:, -2:] if logits.shape[1] > 1 else logits
    total = np.exp(logits - top[:, -1:]).sum(axis=1)
    return (1.0 - np.exp(top[:, 0] - top[:, -1])) / total if top.shape[1] > 1 else 1.0 / total


def entropy(logits: Values) -> Values:
    """Return 1 minus the entropy as a share of the largest possible: [N, classes] to [N], 0 to 1."""
    below = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(below)
    total = shares.sum(axis=1)
    nats = np.log(total) - (shares * below).sum(axis=1) / total
    return np.clip(1.0 - nats / np.log(max(logits.shape[1], 2)), 0.0, 1.0)


CONFIDENCES: dict[str, Callable[[Values], Values]] = {
    "max-softmax": max_softmax,
    "margin": margin,
    "entropy": entropy,
}
"""Measures by name; of each a larger value is surer."""


def confidence_of(name: str, logits: Values) -> Values:
    """Return the confidence of logits [N, classes] by a measure's name, in double precision: [N]."""
    return CONFIDENCES[name](logits.astype(np.float64))
