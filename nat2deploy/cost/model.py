"""Costs of an architecture, by looking up its blocks: MACs, parameters, size and latency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.latency import BlockLatency
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.encoding import Genes, IntegerEncoding
from nat2deploy.space.lowering import (
    head_signatures,
    layer_signature,
    lower,
    stem_signatures,
    total_macs,
    total_params,
)
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature


@dataclass(frozen=True)
class Costs:
    """What a network costs: ``size_mb`` of its fp32 weights (10⁶ bytes); ``latency_ms`` with a table."""

    macs: int
    params: int
    size_mb: float
    latency_ms: float | None


class _Lookup(NamedTuple):
    """One additive metric: ``base`` [resolution, width], ``layers`` [resolution, width, position, code]."""

    base: NDArray[Any]
    layers: NDArray[Any]


class CostModel:
    """Costs of a space's architectures.

    Args:
        space: the space; a table may cover fewer of its resolutions and widths.
        classes: outputs of the classifier.
        table: block latencies; without one there is no latency.

    Raises:
        UserError: the table is of another space.
    """

    def __init__(self, space: SearchSpace, classes: int, table: LatencyTable | None) -> None:
        if table is not None:
            table.check_fingerprint(space)
        self.space = space
        self.classes = classes
        self.table = table
        self._latency = None if table is None else BlockLatency(table)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that can be asked for."""
        return ("macs", "params", "size_mb") + (() if self.table is None else ("latency_ms",))

    def costs(self, architecture: Architecture) -> Costs:
        """Return the costs of one architecture.

        Raises:
            UserError: the table does not hold its resolution, width or one of its blocks.
        """
        signatures = lower(self.space, architecture, self.classes)
        latency_ms = None
        if self.table is not None and self._latency is not None:
            self.table.check_covers(architecture.resolution, architecture.width)
            latency_ms = self._latency.network_ms(signatures)
        params = total_params(signatures)
        return Costs(total_macs(signatures), params, params * 4 / 1e6, latency_ms)

    def costs_of_genes(self, genes: Genes, encoding: IntegerEncoding) -> dict[str, NDArray[Any]]:
        """Return the costs of canonical genes [N, G], each metric [N]: counts int64, the rest float64.

        ``latency_ms`` is there only with a table.

        Raises:
            UserError: the table does not hold a resolution, width or block that occurs.
            ValueError: the encoding is of other resolutions, widths or choices than this model's space.
        """
        if encoding.space is not self.space and encoding.space != self.space:
            raise ValueError(f"the encoding is of another space than the cost model's '{self.space.name}'")
        params = _look_up(self._params, genes)
        costs = {
            "macs": _look_up(self._macs, genes),
            "params": params,
            "size_mb": params * 4 / 1e6,
        }
        if self.table is not None:
            for resolution, width in np.unique(genes[:, :2], axis=0):
                self.table.check_covers(self.space.resolutions[resolution], self.space.widths[width])
            costs["latency_ms"] = _look_up(self._latencies, genes)
        return costs

    def cheapest(self, metric: str) -> tuple[Architecture, float]:
        """Return the architecture of the whole space that costs least, exactly, and its cost.

        Exact because costs add up over layers: each position's cheapest choice, then each stage's cheapest
        depth, then the cheapest resolution and width.

        Raises:
            UserError: no such metric, or the table does not hold all resolutions and widths of the space.
        """
        if metric not in self.metrics:
            why = (
                "give a latency table" if metric == "latency_ms" else f"use one of {', '.join(self.metrics)}"
            )
            raise UserError(f"no cost metric '{metric}' here; {why}")
        if metric == "latency_ms" and self.table is not None:
            self.table.check_space(self.space)
        lookup = {"macs": self._macs, "latency_ms": self._latencies if self.table is not None else None}.get(
            metric, self._params
        )
        assert lookup is not None
        space = self.space
        present = lookup.layers[..., 1:]
        shape = (*present.shape[:2], len(space.stages), space.max_depth)
        code = 1 + present.argmin(-1).reshape(shape)
        # [resolution, width, stage, depth choice]
        by_depth = present.min(-1).reshape(shape).cumsum(-1)[..., space.depths[0] - 1 :]
        total = lookup.base + by_depth.min(-1).sum(-1)
        r, w = np.unravel_index(int(total.argmin()), total.shape)
        genes = np.zeros((len(space.stages), space.max_depth), dtype=np.int64)
        for stage, choice in enumerate(by_depth[r, w].argmin(-1)):
            depth = space.depths[0] + int(choice)
            genes[stage, :depth] = code[r, w, stage, :depth]
        encoding = IntegerEncoding(space)
        architecture = encoding.decode(np.concatenate([np.array([r, w], dtype=np.int64), genes.ravel()]))
        cost = getattr(self.costs(architecture), metric)
        return architecture, float(cost)

    @cached_property
    def _macs(self) -> _Lookup:
        return self._lookup(lambda signature: signature.macs, 0, np.int64)

    @cached_property
    def _params(self) -> _Lookup:
        return self._lookup(lambda signature: signature.params, 0, np.int64)

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
        choices = [Layer(kernel, expansion) for expansion in space.expansions for kernel in space.kernels]
        sizes = (len(space.resolutions), len(space.widths))
        base = np.zeros(sizes, dtype)
        layers = np.zeros((*sizes, len(space.stages) * space.max_depth, 1 + len(choices)), dtype)
        table = self.table if dtype is np.float64 else None
        for r, resolution in enumerate(space.resolutions):
            for w, width in enumerate(space.widths):
                if table is not None and not (resolution in table.resolutions and width in table.widths):
                    continue
                ends = (
                    *stem_signatures(space, resolution, width),
                    *head_signatures(space, resolution, width, self.classes),
                )
                base[r, w] = constant + sum(cost(signature) for signature in ends)
                for stage in range(len(space.stages)):
                    for position in range(min(space.max_depth, 2)):  # all later layers are like the second
                        here = slice(
                            stage * space.max_depth + position,
                            (stage + 1) * space.max_depth if position else stage * space.max_depth + 1,
                        )
                        for code, layer in enumerate(choices, start=1):
                            signature = layer_signature(space, resolution, width, stage, position, layer)
                            layers[r, w, here, code] = cost(signature)
        return _Lookup(base, layers)


def _look_up(lookup: _Lookup, genes: Genes) -> NDArray[Any]:
    """Add up a metric for genes [N, G]; the result is [N]."""
    resolution, width = genes[:, 0], genes[:, 1]
    positions = np.arange(lookup.layers.shape[2])
    layers = lookup.layers[resolution[:, None], width[:, None], positions, genes[:, 2:]]
    total: NDArray[Any] = lookup.base[resolution, width] + layers.sum(axis=1)
    return total
