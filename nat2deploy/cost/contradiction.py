"""Whether fresh networks contradict a table's certificate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.certificate import Certificate
from nat2deploy.cost.fitting import predict_networks
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import SearchSpace

# A fresh mean error up to this is never a contradiction: it is what a good table is off by.
_ALWAYS_FINE = 0.02
# Four networks against four can reach 1/70 at best.
_LEVEL = 0.02
_TWICE = 2.0
_PERMUTATIONS = 9999


def relative_errors(
    table: LatencyTable, space: SearchSpace, networks: Sequence[NetworkEntry]
) -> NDArray[np.float64]:
    """Return how far off the table's predictions of networks are [N], relative, without the sign.

    Raises:
        UserError: a network is not of ``space``, or the table lacks one of its blocks.
    """
    measured = np.array([network.median_ms for network in networks])
    errors: NDArray[np.float64] = np.abs(predict_networks(table, space, networks) / measured - 1)
    return errors


def contradicts(certificate: Certificate, certified: NDArray[np.float64], fresh: NDArray[np.float64]) -> bool:
    """Whether fresh networks' errors are larger than those that a certificate is of, by more than chance.

    The mean counts, above 2 %, by a permutation test of the two means (one-sided, at the level of 2 %), which
    asks nothing of how errors are distributed and holds for four networks as for a hundred.

    Args:
        certificate: the table's.
        certified: relative errors of its networks [N]; empty where they are not known any more, which leaves
            the rule of twice the certified mean error.
        fresh: those of the fresh networks [M].
    """
    mean = float(fresh.mean())
    if mean <= _ALWAYS_FINE:
        return False
    if not len(certified):
        return mean > _TWICE * certificate.mape
    return _chance(fresh, certified) <= _LEVEL


def _chance(larger: NDArray[np.float64], smaller: NDArray[np.float64]) -> float:
    """How often the mean of as many, drawn from both together, is as large as that of ``larger``."""
    both = np.concatenate([larger, smaller])
    drawn = np.random.default_rng(0).permuted(np.tile(both, (_PERMUTATIONS, 1)), axis=1)[:, : len(larger)]
    # A draw of the very same networks may add up to a little less, in another order.
    as_large = np.count_nonzero(drawn.mean(axis=1) >= larger.mean() * (1 - 1e-12))
    return float((1 + as_large) / (1 + _PERMUTATIONS))


def certified_errors(table: LatencyTable, space: SearchSpace) -> NDArray[np.float64]:
    """Return the relative errors of the networks that a table's certificate is of [N].

    Empty where the table does not hold them, or ``space`` cannot tell what they are made of.
    """
    held_out = [network for network in table.networks if network.role == "held-out"]
    if table.certificate is None or len(held_out) != table.certificate.networks:
        return np.empty(0)
    try:
        return relative_errors(table, space, held_out)
    except UserError:
        return np.empty(0)
