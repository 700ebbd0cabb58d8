"""From measured blocks and whole networks to a table that predicts, and says how well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.calibration import MeasuredNetwork, calibrate
from nat2deploy.cost.certificate import MAX_NOISE, Certificate, certify
from nat2deploy.cost.latency import BlockLatency, BlockMedians
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import LatencyTable
from nat2deploy.cost.tail import at_percentile, fit_tail
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import SearchSpace

_UNKNOWN_NOISE = (
    "no certificate: a table that has none does not say how noisy its networks' measurement was; profile it "
    "again with this version"
)


def fit_table(
    table: LatencyTable, space: SearchSpace, *, call_overhead_ms: float, noise: float | None
) -> tuple[LatencyTable, str]:
    """Fit calibration and tail to the table's calibration networks, and certify on its held-out ones.

    Returns the table, and why it has no certificate where it has none.

    Args:
        table: its entries and networks are what counts.
        space: of the table, for the networks' blocks.
        call_overhead_ms: latency of an engine that computes next to nothing.
        noise: relative, of the networks' measurement; None where nobody knows, which is no certificate.

    Raises:
        UserError: too few calibration networks, or one that is not of ``space``.
    """
    medians = BlockMedians(table.entries)
    fitted = [network for network in table.networks if network.role == "calibration"]
    measured = []
    for network in fitted:
        signatures = network.signatures(space)
        blocks_ms = [medians.median_ms(signature) for signature in signatures]
        measured.append(MeasuredNetwork(signatures, blocks_ms, network.median_ms))
    calibration = calibrate(measured, call_overhead_ms)
    tail = fit_tail(*([getattr(n, name) for n in fitted] for name in ("median_ms", "p95_ms", "p99_ms")))
    held_out = [network for network in table.networks if network.role == "held-out"]
    noise = None if noise is None else _network_noise(held_out, noise)
    table = table.model_copy(
        update={"calibration": calibration, "tail": tail, "certificate": None, "network_noise": noise}
    )
    if noise is None:
        return table, _UNKNOWN_NOISE
    try:
        certificate = certify_networks(table, space, held_out, noise=noise)
    except UserError as error:
        return table, str(error)
    return table.model_copy(update={"certificate": certificate}), ""


def certify_networks(
    table: LatencyTable, space: SearchSpace, networks: Sequence[NetworkEntry], *, noise: float
) -> Certificate:
    """Certify a table on networks that its calibration never saw.

    Raises:
        UserError: too few networks, or too noisy ones.
    """
    known = _network_noise(networks, noise)
    if noise <= MAX_NOISE < known:
        raise UserError(
            f"no certificate: for noise half of the networks are known to within {known:.1%} only, above "
            f"{MAX_NOISE:.0%}; give more time (--time-limit), or stop other work on the machine, and "
            "measure again"
        )
    predicted = predict_networks(table, space, networks)
    certificate = certify(predicted, [network.median_ms for network in networks], noise=known)
    if table.tail is None:
        return certificate
    errors = {
        f"{name}_mape": _mape(
            at_percentile(percentile, predicted), [getattr(n, f"{name}_ms") for n in networks]
        )
        for name, percentile in (("p95", table.tail.p95), ("p99", table.tail.p99))
    }
    return certificate.model_copy(update=errors)


def predict_networks(
    table: LatencyTable, space: SearchSpace, networks: Sequence[NetworkEntry]
) -> NDArray[np.float64]:
    """Predict the networks' median latencies [N], in ms.

    Raises:
        UserError: a network is not of ``space``, or the table lacks one of its blocks.
    """
    latency = BlockLatency(table)
    return np.array([latency.network_ms(network.signatures(space)) for network in networks])


def _network_noise(networks: Sequence[NetworkEntry], noise: float) -> float:
    """What networks are known to: the reference workload can slip between disturbances that they all meet."""
    widths = [(n.ci_high_ms - n.ci_low_ms) / n.median_ms / 2 for n in networks]
    return max(noise, float(np.median(widths)) if widths else 0.0)


def _mape(predicted_ms: NDArray[np.float64], measured_ms: Sequence[float]) -> float:
    return float(np.mean(np.abs(predicted_ms / np.asarray(measured_ms) - 1)))
