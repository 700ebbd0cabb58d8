"""Costs of an architecture, by looking up its blocks: MACs, parameters, size, memory, latency and energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.block_values import block_energies
from nat2deploy.cost.coverage import check_serves, check_space
from nat2deploy.cost.latency import BlockLatency
from nat2deploy.cost.memory import PeakMemory, network_peak_values
from nat2deploy.cost.table import LatencyTable
from nat2deploy.cost.tail import Percentile, at_percentile
from nat2deploy.cost.weights import VALUE_BYTES, weight_bytes
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding
from nat2deploy.space.lowering import (
    added,
    head_signatures,
    layer_signatures,
    plan_network,
    stem_signatures,
    sum_signature,
    total_macs,
    total_params,
)
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Target


@dataclass(frozen=True)
class Costs:
    """What a network costs, in the number format of the table's target, else in fp32.

    ``size_mb`` (10⁶ bytes) is its weights' size; ``memory_mb`` the most that its activations take at once,
    for a batch of the table's target, else for one image. ``latency_ms`` is there with a table, its
    percentiles with one that has a tail, ``energy_mj`` (a run of the batch) with one whose every block has
    an energy: their plain sum.
    """

    macs: int
    params: int
    size_mb: float
    memory_mb: float
    latency_ms: float | None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    energy_mj: float | None = None


class _Lookup(NamedTuple):
    """One additive metric.

    ``base`` [resolution, width, exits] is everything beside the layers, ``layers`` [resolution, width,
    position, code] each layer's part, the sums behind it included.
    """

    base: NDArray[Any]
    layers: NDArray[Any]


class CostModel:
    """Costs of a space's architectures.

    Args:
        space: the space; a table may cover fewer of its resolutions and widths.
        classes: outputs of the classifier.
        table: block latencies; without one there is no latency.
        target: whose number format and batch count without a table.

    Raises:
        UserError: the table lacks blocks of the space.
    """

    def __init__(
        self, space: SearchSpace, classes: int, table: LatencyTable | None, target: Target | None = None
    ) -> None:
        if table is not None:
            check_serves(table, space)
        self.space = space
        self.classes = classes
        self.table = table
        self.target = table.target if table is not None else target or Target()
        self._memory = PeakMemory(space, classes)
        self._latency = None if table is None else BlockLatency(table)
        self._energy = None if table is None else block_energies(table)

    @property
    def targets(self) -> tuple[str, ...]:
        """No names: there is one target, and its metrics bear none."""
        return ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that can be asked for."""
        latencies = () if self.table is None else ("latency_ms", *self._percentiles)
        energy = () if self._energy is None else ("energy_mj",)
        return ("macs", "params", "size_mb", "memory_mb", *latencies, *energy)

    @property
    def _percentiles(self) -> dict[str, Percentile]:
        """Metrics that follow from the median latency."""
        tail = None if self.table is None else self.table.tail
        return {} if tail is None else {"latency_p95_ms": tail.p95, "latency_p99_ms": tail.p99}

    @property
    def _mb_per_value(self) -> float:
        return VALUE_BYTES[self.target.precision] * self.target.batch / 1e6

    def costs(self, architecture: Architecture) -> Costs:
        """Return the costs of one architecture.

        Raises:
            UserError: the table does not hold its resolution, width or one of its blocks.
        """
        plan = plan_network(self.space, architecture, self.classes)
        signatures = plan.signatures
        latency_ms = None
        more: dict[str, float] = {}
        if self.table is not None and self._latency is not None:
            self.table.check_covers(architecture.resolution, architecture.width)
            latency_ms = self._latency.network_ms(signatures)
            median_ms = np.array(latency_ms)
            more = {name: float(at_percentile(p, median_ms)) for name, p in self._percentiles.items()}
        if self._energy is not None:
            more["energy_mj"] = sum(map(self._energy.value, signatures))
        return Costs(
            total_macs(signatures),
            total_params(signatures),
            sum(map(self._weight_bytes, signatures)) / 1e6,
            network_peak_values(plan) * self._mb_per_value,
            latency_ms,
            **more,
        )

    def values(self, architecture: Architecture) -> dict[str, float]:
        """Return the costs of one architecture by metric.

        Raises:
            UserError: as ``costs``.
        """
        found = self.costs(architecture)
        return {metric: getattr(found, metric) for metric in self.metrics}

    def costs_of_genes(self, genes: Genes, encoding: IntegerEncoding) -> dict[str, NDArray[Any]]:
        """Return the costs of canonical genes [N, G], each metric [N]: counts int64, the rest float64.

        They are those of ``metrics``, in its order.

        Raises:
            UserError: the table does not hold a resolution, width or block that occurs.
            ValueError: the encoding is of other resolutions, widths or choices than this model's space.
        """
        if encoding.space is not self.space and encoding.space != self.space:
            raise ValueError(f"the encoding is of another space than the cost model's '{self.space.name}'")
        costs = {
            "macs": _look_up(self._macs, genes, encoding),
            "params": _look_up(self._params, genes, encoding),
            "size_mb": _look_up(self._weights, genes, encoding) / 1e6,
            "memory_mb": self._memory.values(genes, encoding) * self._mb_per_value,
        }
        if self.table is not None:
            for resolution, width in np.unique(genes[:, :2], axis=0):
                self.table.check_covers(self.space.resolutions[resolution], self.space.widths[width])
            costs["latency_ms"] = _look_up(self._latencies, genes, encoding)
            for name, percentile in self._percentiles.items():
                costs[name] = at_percentile(percentile, costs["latency_ms"])
        if self._energy is not None:
            costs["energy_mj"] = _look_up(self._energies, genes, encoding)
        return costs

    def cheapest(self, metric: str) -> tuple[Architecture, float]:
        """Return the architecture of the whole space that costs least, exactly, and its cost.

        Exact because costs add up over layers: each position's cheapest choice, then each stage's cheapest
        depth, then the cheapest resolution and width. Peak memory does not: see ``PeakMemory``.

        Raises:
            UserError: no such metric, or the table does not hold all resolutions and widths of the space.
        """
        if metric not in self.metrics:
            why = (
                "give a latency table of this version"
                if metric.startswith("latency")
                else f"use one of {', '.join(self.metrics)}"
            )
            raise UserError(f"no cost metric '{metric}' here; {why}")
        encoding = IntegerEncoding(self.space)
        if metric == "memory_mb":
            architecture = self._memory.cheapest(encoding)
        else:
            architecture = encoding.decode(self._lowest(self._lookup_of(metric), encoding))
        return architecture, float(getattr(self.costs(architecture), metric))

    def _lookup_of(self, metric: str) -> _Lookup:
        if metric == "macs":
            return self._macs
        if metric == "params":
            return self._params
        if metric == "size_mb":
            return self._weights
        if self.table is not None:
            check_space(self.table, self.space)
        # Percentiles are ascending functions of the median.
        return self._energies if metric == "energy_mj" else self._latencies

    def _lowest(self, lookup: _Lookup, encoding: IntegerEncoding) -> Genes:
        space = self.space
        present = lookup.layers[..., 1:]
        shape = (*present.shape[:2], len(space.stages), space.max_depth)
        code = 1 + present.argmin(-1).reshape(shape)
        # [resolution, width, stage, depth choice]
        by_depth = present.min(-1).reshape(shape).cumsum(-1)[..., space.depths[0] - 1 :]
        up_to = by_depth.min(-1).cumsum(-1)  # [resolution, width, last stage]
        total = lookup.base + up_to[..., [exits[-1] - 1 for exits in space.exit_states]]
        r, w, exits = np.unravel_index(int(total.argmin()), total.shape)
        layers = np.zeros((len(space.stages), space.max_depth), dtype=np.int64)
        for stage, choice in enumerate(by_depth[r, w].argmin(-1)):
            depth = space.depths[0] + int(choice)
            layers[stage, :depth] = code[r, w, stage, :depth]
        head = np.array([r, w, exits][: encoding.first_layer], dtype=np.int64)
        return np.concatenate([head, layers.ravel()])

    def _weight_bytes(self, signature: BlockSignature) -> int:
        return weight_bytes(signature, self.target.precision)

    @cached_property
    def _macs(self) -> _Lookup:
        return self._lookup(lambda signature: signature.macs, 0, np.int64)

    @cached_property
    def _params(self) -> _Lookup:
        return self._lookup(lambda signature: signature.params, 0, np.int64)

    @cached_property
    def _weights(self) -> _Lookup:
        return self._lookup(self._weight_bytes, 0, np.int64)

    @cached_property
    def _energies(self) -> _Lookup:
        assert self._energy is not None
        return self._lookup(self._energy.value, 0.0, np.float64)

    @cached_property
    def _latencies(self) -> _Lookup:
        latency = self._latency
        assert latency is not None
        return self._lookup(latency.block_ms, latency.intercept_ms, np.float64)

    def _lookup(
        self, cost: Callable[[BlockSignature], float], constant: float, dtype: type[np.generic]
    ) -> _Lookup:
        """Fill a metric's arrays; where the table has no such resolution or width they stay 0, unused."""
        space = self.space
        encoding = IntegerEncoding(space)
        sizes = (len(space.resolutions), len(space.widths))
        base = np.zeros((*sizes, len(space.exit_states)), dtype)
        layers = np.zeros((*sizes, encoding.stages * space.max_depth, encoding.states), dtype)
        table = self.table if dtype is np.float64 else None
        for r, resolution in enumerate(space.resolutions):
            for w, width in enumerate(space.widths):
                if table is not None and not (resolution in table.resolutions and width in table.widths):
                    continue
                stem = constant + sum(map(cost, stem_signatures(space, resolution, width)))
                heads = {
                    stage: sum(map(cost, head_signatures(space, resolution, width, self.classes, stage)))
                    for stage in space.exit_stages
                }
                base[r, w] = [stem + sum(heads[stage] for stage in exits) for exits in space.exit_states]
                for stage in range(encoding.stages):
                    here = slice(stage * space.max_depth, (stage + 1) * space.max_depth)
                    layers[r, w, here, 1:] = self._stage(encoding, cost, resolution, width, stage)
        return _Lookup(base, layers)

    def _stage(
        self,
        encoding: IntegerEncoding,
        cost: Callable[[BlockSignature], float],
        resolution: int,
        width: float,
        stage: int,
    ) -> NDArray[Any]:
        """Costs of every layer of a stage [position, code - 1]."""
        space = self.space
        known: dict[BlockSignature, float] = {}
        one_sum = sum_signature(space, resolution, width, stage)
        rows = []
        for position in range(min(space.max_depth, 2)):
            row = []
            for code in range(1, encoding.states):
                layer = encoding.layer(code)
                blocks = layer_signatures(space, resolution, width, stage, position, layer).values()
                parts = [*blocks, *[one_sum] * (len(blocks) - 1)]
                row.append(sum(known[b] if b in known else known.setdefault(b, cost(b)) for b in parts))
            rows.append(row)
        # All later layers are like the second, but for the dense skips behind them.
        costs = np.array([rows[min(position, 1)] for position in range(space.max_depth)])
        if space.dense_skips and space.max_depth > 2:
            skips = np.array([len(added(position)) for position in range(space.max_depth)])
            costs = costs + (skips * cost(one_sum))[:, None]
        return costs


def _look_up(lookup: _Lookup, genes: Genes, encoding: IntegerEncoding) -> NDArray[Any]:
    """Add up a metric for genes [N, G]; the result is [N]."""
    resolution, width = genes[:, 0], genes[:, 1]
    codes = genes[:, encoding.first_layer :]
    layers = lookup.layers[resolution[:, None], width[:, None], np.arange(codes.shape[1]), codes]
    total: NDArray[Any] = lookup.base[resolution, width, encoding.exit_index(genes)] + layers.sum(axis=1)
    return total
