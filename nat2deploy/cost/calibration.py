"""From blocks measured alone to whole networks: a correction that stays additive per block.

    latency = intercept + Σ over blocks (scale × (median − call overhead) + price × weights in MB)

where the price is asked for inverted residuals only. Why these terms: with ONNX Runtime (fp32, 1 thread) on
two busy EPYC cores, 60 random networks each of ``nano`` (28 and 32 px, 0.07 to 0.2 ms) and ``ofa-mbv3``
(160 px, 1.4 to 2.7 ms), 30 splits into 24 networks to fit and 36 to predict, mean and largest errors were:

=========================================================  ==============  ===============
model                                                      ``nano``        ``ofa-mbv3``
=========================================================  ==============  ===============
plain sum                                                  16 %,  26 %     9.0 %, 15.4 %
one scale                                                  1.8 %,  9.1 %   3.4 %, 11.3 %
one scale, the call overhead taken off each block          1.3 %,  5.3 %   3.4 %, 11.0 %
the same, and a price on the weights of all blocks         0.7 %,  3.7 %   2.6 %,  9.6 %
the same, on those of inverted residuals                   0.6 %,  3.2 %   1.8 %,  6.9 %
the same, and an intercept of free sign (chosen)           0.6 %,  3.3 %   1.0 %,  4.8 %
scales for squeeze-and-excite, first and repeated layers   0.8 %,  4.1 %   2.3 %,  9.3 %
those and the weights of all blocks                        0.6 %,  3.1 %   1.5 %,  6.3 %
a scale a stage (does not carry over to other widths)      0.6 %,  3.7 %   1.2 %,  6.4 %
=========================================================  ==============  ===============

The call overhead (entering the engine: 1.8 µs, a tenth of a small block) is paid once a network, not once a
block. Blocks measured alone keep their weights in the nearest caches; in a network they come from further
away, which costs time in proportion to their size, and the more so the larger the network is: hence the price
and an intercept that may be negative. The head and the classifier are too large for those caches even alone.
The networks' own medians were known to 0.2 % (``nano``) and 3.4 % (``ofa-mbv3``), so 1.0 % is near what
could be seen. Over three resolutions at once (128, 160 and 224 px; 0.65 to 7.2 ms, known to 3.3 %) the chosen
model was 1.6 % off in the mean, with 99 % of the networks within 5 % and the worst of all splits 13 %.

Measuring each block between two 1×1 convolutions, whose cost is then taken off, spares the layout changes at
the block's borders: 0.4 % and 1.0 %, for twice the measuring. Blocks timed after the caches were flushed
predicted no better. So blocks are measured alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import lsq_linear

from nat2deploy.errors import UserError
from nat2deploy.space.signature import BlockSignature

FEWEST_NETWORKS = 4
_RIDGE = 0.02
_ROUNDS = 10
_HUBER = 2.0
_MB_PER_PARAM = 4 / 1e6

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Calibration(BaseModel):
    """The fitted correction; ``residual`` is the mean absolute relative error on the fitted networks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    ms_per_weight_mb: NonNegative
    call_overhead_ms: NonNegative
    intercept_ms: Annotated[float, Field(allow_inf_nan=False)]
    networks: Annotated[int, Field(ge=FEWEST_NETWORKS)]
    residual: NonNegative

    def block_ms(self, signature: BlockSignature, median_ms: float) -> float:
        """What a block adds to a network's latency, in ms, from its median alone."""
        compute_ms = _compute_ms(median_ms, self.call_overhead_ms)
        return self.scale * compute_ms + self.ms_per_weight_mb * _priced_mb(signature)


@dataclass(frozen=True)
class MeasuredNetwork:
    """A whole network to calibrate on: its blocks, their medians alone, and its own median, in ms."""

    signatures: Sequence[BlockSignature]
    block_medians_ms: Sequence[float]
    latency_ms: float


def calibrate(networks: Sequence[MeasuredNetwork], call_overhead_ms: float) -> Calibration:
    """Fit the correction to measured networks.

    Least squares on relative errors, with Huber weights, so that one network that was disturbed does not
    count; a light ridge holds terms that the networks do not tell apart near a plain sum. The scale and the
    weights' price cannot be negative; the intercept takes off half of the fastest network at most, so that
    predictions stay positive.

    Args:
        networks: four or more, best spread over the range of latencies.
        call_overhead_ms: latency of an engine that computes next to nothing.

    Raises:
        UserError: too few networks.
    """
    if len(networks) < FEWEST_NETWORKS:
        raise UserError(
            f"calibrating needs {FEWEST_NETWORKS} networks or more, not {len(networks)}; measure more"
        )
    measured = np.array([network.latency_ms for network in networks])
    terms = np.array([_terms(network, call_overhead_ms) for network in networks])
    shares = terms / measured[:, None]
    prior = np.array([1.0, 0.0, call_overhead_ms])
    least = np.array([1e-3, 0.0, -0.5 * measured.min()])
    found = _robust(shares, prior, least)
    return Calibration(
        scale=found[0],
        ms_per_weight_mb=found[1],
        call_overhead_ms=call_overhead_ms,
        intercept_ms=found[2],
        networks=len(networks),
        residual=float(np.mean(np.abs(shares @ found - 1))),
    )


def _terms(network: MeasuredNetwork, call_overhead_ms: float) -> list[float]:
    """What scale, weights' price and intercept are multiplied with."""
    compute_ms = sum(_compute_ms(median, call_overhead_ms) for median in network.block_medians_ms)
    weights_mb = sum(_priced_mb(signature) for signature in network.signatures)
    return [compute_ms, weights_mb, 1.0]


def _priced_mb(signature: BlockSignature) -> float:
    """Weights in 10⁶ bytes that a network fetches from further away than the block does alone."""
    return signature.params * _MB_PER_PARAM if signature.kind == "mbconv" else 0.0


def _compute_ms(median_ms: float, call_overhead_ms: float) -> float:
    return max(median_ms - call_overhead_ms, 0.0)


def _robust(
    shares: NDArray[np.float64], prior: NDArray[np.float64], least: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve shares [networks, terms] × x = 1 with a ridge toward ``prior``, reweighted (Huber, 1964)."""
    sizes = np.sqrt(np.mean(shares**2, axis=0))
    ridge = np.diag(_RIDGE * np.sqrt(len(shares)) * sizes)
    weights = np.ones(len(shares))
    found = prior
    for _ in range(_ROUNDS):
        rows = np.vstack([shares * weights[:, None], ridge])
        wanted = np.concatenate([weights, ridge @ prior])
        found = np.asarray(lsq_linear(rows, wanted, bounds=(least, np.inf)).x, dtype=np.float64)
        errors = np.abs(shares @ found - 1)
        reach = max(_HUBER * 1.4826 * float(np.median(errors)), 1e-4)
        weights = np.sqrt(np.minimum(1.0, reach / np.maximum(errors, 1e-12)))
    return found
