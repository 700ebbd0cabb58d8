"""From blocks measured alone to whole networks: a correction that stays additive per block.

    latency = intercept + Σ over blocks ( scale × (median − call overhead)
                                        + price × weights in MB
                                        − relief × (input and output in MB)
                                        + a constant )

where inverted residuals and classifiers have a price each, relief and constant are those of inverted
residuals, and parallel branches and sums have scales of their own. Why these terms: with ONNX Runtime (1
thread) on two busy EPYC cores, networks spread evenly over the orders of latency, 40 splits into 24
networks to fit and the rest to predict, mean and largest errors were:

===========================================  ==============  ==============  ===============  ==============
                                             ``nano-ee-d``   ``nano``        ``ofa-mbv3``     ``nano-ee-d``
                                             28, 32 px       28 to 64 px     128 to 256 px    in int8
networks                                     74              140             80               74
latency, ms                                  0.07 to 0.65    0.06 to 1.9     1.3 to 26        0.06 to 0.72
noise of a network's median                  0.3 %           0.4 %           2.4 %            0.4 %
===========================================  ==============  ==============  ===============  ==============
scale, price of residuals' weights           1.1 %,  5.5 %   1.4 %,  7.6 %   2.5 %,  12.7 %   1.6 %,  7.1 %
the same and the relief                      1.1 %,  6.0 %   1.0 %,  6.3 %   2.6 %,  13.3 %   1.7 %,  7.2 %
those and the price of classifiers' weights  1.0 %,  4.2 %   1.0 %,  6.3 %   2.2 %,   9.7 %   1.8 %,  7.8 %
those and a constant a block (chosen)        1.0 %,  4.3 %   1.0 %,  6.1 %   2.1 %,   9.2 %   1.8 %,  7.9 %
those and a scale for squeeze-and-excite     0.9 %,  3.2 %   1.0 %,  6.2 %   2.1 %,   9.3 %   1.8 %,  7.9 %
a scale a kernel size, no constant           1.0 %,  4.3 %   1.0 %,  6.2 %   2.3 %,   9.7 %   1.7 %,  7.7 %
===========================================  ==============  ==============  ===============  ==============

The call overhead (entering the engine: 2.5 µs, a tenth of a small block) is paid once a network, not once a
block. Blocks measured alone keep their weights in the nearest caches; in a network they come from further
away, which costs time in proportion to their size, and the more so the larger the network is: hence the
prices and an intercept that may be negative. The engine computes in a layout of its own, and a block alone
is brought into it and out again, in proportion to its input and output: hence the relief. The static
branches beside an inverted residual and the sums behind them are small and mostly such changes: over all
six resolutions of ``nano-me-dp`` (110 networks, beside heavy load) scales of their own bring 4.0 % down to
3.1 %.

Measuring each block between two 1×1 convolutions, whose cost is then taken off, spares the layout changes
at the block's borders, for twice the measuring. Blocks timed after the caches were flushed predicted no
better. So blocks are measured alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.errors import UserError
from nat2deploy.space.signature import BlockSignature

FEWEST_NETWORKS = 4
_RIDGE = 0.02
_ROUNDS = 10
_HUBER = 2.0
_LEAST_SCALE = 1e-3
_MB_PER_FLOAT = 4 / 1e6

Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Scale = Annotated[float, Field(gt=0, le=1e3)]


class Calibration(BaseModel):
    """The fitted correction; ``residual`` is the mean absolute relative error on the fitted networks.

    ``branch_scale`` is that of parallel branches, ``add_scale`` that of sums of two tensors; where they are
    missing it is ``scale``. Megabytes (10⁶ bytes) are those of fp32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Scale
    branch_scale: Scale | None = None
    add_scale: Scale | None = None
    ms_per_weight_mb: NonNegative
    ms_per_classifier_mb: NonNegative = 0.0
    relief_ms_per_mb: NonNegative = 0.0
    ms_per_block: Finite = 0.0
    call_overhead_ms: NonNegative
    intercept_ms: Finite
    networks: Annotated[int, Field(ge=FEWEST_NETWORKS)]
    residual: NonNegative

    def block_ms(self, signature: BlockSignature, median_ms: float) -> float:
        """What a block adds to a network's latency, in ms and at least 0, from its median alone."""
        factors = (
            self.scale,
            self.branch_scale or self.scale,
            self.add_scale or self.scale,
            self.ms_per_weight_mb,
            self.ms_per_classifier_mb,
            self.relief_ms_per_mb,
            self.ms_per_block,
        )
        terms = _terms(signature, median_ms, self.call_overhead_ms)
        return max(sum(factor * term for factor, term in zip(factors, terms, strict=True)), 0.0)


@dataclass(frozen=True)
class MeasuredNetwork:
    """A whole network to calibrate on: its blocks, their medians alone, and its own median, in ms."""

    signatures: Sequence[BlockSignature]
    block_medians_ms: Sequence[float]
    latency_ms: float


def calibrate(networks: Sequence[MeasuredNetwork], call_overhead_ms: float) -> Calibration:
    """Fit the correction to measured networks.

    Least squares on relative errors, with Huber weights, so that one network that was disturbed does not
    count; a light ridge holds terms that the networks do not tell apart near a plain sum. Scales,
    prices and the relief cannot be negative; the intercept takes off half of the fastest network at most.

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
    terms = np.array([[*_sums(network, call_overhead_ms), 1.0] for network in networks])
    shares = terms / measured[:, None]
    prior = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, call_overhead_ms])
    least = np.array([_LEAST_SCALE] * 3 + [0.0] * 3 + [-np.inf, -0.5 * measured.min()])
    occurs = np.flatnonzero(terms.any(axis=0))
    found = prior.copy()
    found[occurs] = _robust(shares[:, occurs], prior[occurs], least[occurs])
    return Calibration(
        scale=found[0],
        branch_scale=found[1] if 1 in occurs else None,
        add_scale=found[2] if 2 in occurs else None,
        ms_per_weight_mb=found[3],
        ms_per_classifier_mb=found[4],
        relief_ms_per_mb=found[5],
        ms_per_block=found[6],
        call_overhead_ms=call_overhead_ms,
        intercept_ms=found[7],
        networks=len(networks),
        residual=float(np.mean(np.abs(shares @ found - 1))),
    )


def _sums(network: MeasuredNetwork, call_overhead_ms: float) -> NDArray[np.float64]:
    """Add up the terms of a network's blocks."""
    blocks = zip(network.signatures, network.block_medians_ms, strict=True)
    terms = np.array([_terms(signature, median, call_overhead_ms) for signature, median in blocks])
    sums: NDArray[np.float64] = terms.sum(axis=0)
    return sums


def _terms(signature: BlockSignature, median_ms: float, call_overhead_ms: float) -> tuple[float, ...]:
    """What the three scales, the two prices, the relief and the constant are multiplied with."""
    s = signature
    compute_ms = max(median_ms - call_overhead_ms, 0.0)
    weights_mb = s.params * _MB_PER_FLOAT
    branch, add, mbconv = s.kind in ("pointwise", "transform"), s.kind == "add", s.kind == "mbconv"
    outside = -(-s.height // s.stride) * -(-s.width // s.stride)
    moved_mb = (s.in_channels * s.height * s.width + s.out_channels * outside) * _MB_PER_FLOAT
    return (
        0.0 if branch or add else compute_ms,
        compute_ms if branch else 0.0,
        compute_ms if add else 0.0,
        weights_mb if mbconv else 0.0,
        weights_mb if s.kind == "classifier" else 0.0,
        -moved_mb if mbconv else 0.0,
        1.0 if mbconv else 0.0,
    )


def _robust(
    shares: NDArray[np.float64], prior: NDArray[np.float64], least: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve shares [networks, terms] × x = 1 with a ridge toward ``prior``, reweighted (Huber, 1964)."""
    from scipy.optimize import lsq_linear  # slow to load; who only reads tables needs none

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
