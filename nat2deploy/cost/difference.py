"""What two latency tables of a space say differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nat2deploy.cost.energy import energy_words
from nat2deploy.cost.latency import BlockLatency
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.target import Gpu

_NETWORKS = 200
_CLASSES = 10


@dataclass(frozen=True)
class BlockRatio:
    """One block in both tables, and ``ratio``, the second's median over the first's."""

    key: str
    first_ms: float
    second_ms: float
    ratio: float


@dataclass(frozen=True)
class Difference:
    """Two tables side by side; ratios are the second's latency over the first's.

    ``context`` holds what was not the same around them: name, in the first, in the second. ``network_ratio``
    is the median over random architectures, whose 5th and 95th percentile are ``network_low`` and
    ``network_high``; ``spearman`` says whether both put them in one order.
    """

    context: list[tuple[str, str, str]]
    blocks: list[BlockRatio]
    only_first: int
    only_second: int
    block_ratio: float
    networks: int
    network_ratio: float
    network_low: float
    network_high: float
    spearman: float


def compare_tables(
    first: LatencyTable, second: LatencyTable, space: SearchSpace, seed: int = 0
) -> Difference:
    """Compare two tables of one space; blocks come with the most different one first.

    Raises:
        UserError: other spaces, or no resolution and width in common.
    """
    from scipy.stats import spearmanr  # slow to load; who only reads tables needs none

    for table in (first, second):
        table.check_fingerprint(space)
    resolutions = tuple(r for r in first.resolutions if r in second.resolutions)
    widths = tuple(w for w in first.widths if w in second.widths)
    if not (resolutions and widths):
        raise UserError("the tables have no resolution and width in common; there is nothing to compare")
    shared = [
        BlockRatio(
            key,
            entry.median_ms,
            second.entries[key].median_ms,
            second.entries[key].median_ms / entry.median_ms,
        )
        for key, entry in first.entries.items()
        if key in second.entries
    ]
    shared.sort(key=lambda block: -abs(np.log(block.ratio)))
    both = space.restrict(resolutions=resolutions, widths=widths)
    drawn = random_architectures(IntegerEncoding(both), np.random.default_rng(seed), _NETWORKS)
    signatures = [lower(both, architecture, _CLASSES) for architecture in drawn]
    predicted = [
        np.array([latency.network_ms(network) for network in signatures])
        for latency in (BlockLatency(first), BlockLatency(second))
    ]
    ratios = predicted[1] / predicted[0]
    low, middle, high = np.percentile(ratios, [5, 50, 95])
    return Difference(
        context=_context(first, second),
        blocks=shared,
        only_first=len(first.entries) - len(shared),
        only_second=len(second.entries) - len(shared),
        block_ratio=float(np.median([block.ratio for block in shared])),
        networks=len(drawn),
        network_ratio=float(middle),
        network_low=float(low),
        network_high=float(high),
        spearman=float(spearmanr(*predicted).statistic) if len(drawn) > 1 else 1.0,
    )


def _gpu(gpu: Gpu | None) -> dict[str, str]:
    if gpu is None:
        return {}
    facts = gpu.model_dump(exclude={"name"})
    words = {
        f"GPU {name.replace('_', ' ')}": str(value) for name, value in facts.items() if value is not None
    }
    return {"GPU": gpu.name, **words}


def _context(first: LatencyTable, second: LatencyTable) -> list[tuple[str, str, str]]:
    """Everything around the measurements that is not the same."""
    rows = []
    for table in (first, second):
        machine = table.fingerprint
        networks_noise = table.noise_of_networks()
        rows.append(
            {
                "target": str(table.target),
                "cpu": machine.cpu,
                "cores": str(machine.cores),
                "instruction sets": ", ".join(machine.flags),
                **machine.words(),
                **_gpu(machine.gpu),
                "system": machine.system,
                **{f"{name} version": version for name, version in machine.libraries.items()},
                "resolutions": ", ".join(map(str, table.resolutions)),
                "created": str(table.created),
                "noise of blocks": f"{table.noise_floor:.2%}",
                "noise of networks": "not kept" if networks_noise is None else f"{networks_noise:.2%}",
                "clock changes": "; ".join(table.clock_changes) or "none",
                "energy": energy_words(table),
                "certificate": "none"
                if table.certificate is None
                else f"{table.certificate.mape:.2%} on {table.certificate.networks} networks",
            }
        )
    names = dict.fromkeys([*rows[0], *rows[1]])
    return [
        (name, rows[0].get(name, "unknown"), rows[1].get(name, "unknown"))
        for name in names
        if rows[0].get(name) != rows[1].get(name)
    ]
