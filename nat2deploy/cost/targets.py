"""Costs on several targets at once: each target's metrics bear its name, as in ``latency_ms@pi5``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from nat2deploy.cost.metric_names import at
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding
from nat2deploy.space.search_space import SearchSpace


class TargetCosts:
    """As ``CostModel``, but of several targets: ``macs``, ``params``, and ``METRIC@TARGET`` of each.

    Args:
        space: the space of all tables.
        classes: outputs of the classifier.
        tables: block latencies by the target's name, at least one.

    Raises:
        UserError: a table of another space; names it.
    """

    def __init__(self, space: SearchSpace, classes: int, tables: Mapping[str, LatencyTable]) -> None:
        self.space = space
        self._models: dict[str, CostModel] = {}
        for name, table in tables.items():
            try:
                self._models[name] = CostModel(space, classes, table)
            except UserError as error:
                raise UserError(f"target {name}: {error}") from error

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets' names, in the order in which they were given."""
        return tuple(self._models)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that can be asked for."""
        found = [at(metric, name) for name, model in self._models.items() for metric in model.metrics]
        return tuple(dict.fromkeys(found))

    def values(self, architecture: Architecture) -> dict[str, float]:
        """Return the costs of one architecture by metric.

        Raises:
            UserError: a table does not hold its resolution, width or one of its blocks.
        """
        return {
            at(metric, name): value
            for name, model in self._models.items()
            for metric, value in model.values(architecture).items()
        }

    def costs_of_genes(self, genes: Genes, encoding: IntegerEncoding) -> dict[str, NDArray[Any]]:
        """Return the costs of canonical genes [N, G], each metric [N].

        Raises:
            UserError: a table does not hold a resolution, width or block that occurs.
            ValueError: the encoding is of other resolutions, widths or choices than the space.
        """
        return {
            at(metric, name): value
            for name, model in self._models.items()
            for metric, value in model.costs_of_genes(genes, encoding).items()
        }

    def cheapest(self, metric: str) -> tuple[Architecture, float]:
        """Return the architecture of the whole space that costs least, exactly, and its cost.

        Raises:
            UserError: no such metric, or its table does not hold all resolutions and widths of the space.
        """
        if metric not in self.metrics:
            raise UserError(f"no cost metric '{metric}' here; use one of {', '.join(self.metrics)}")
        base, _, name = metric.partition("@")
        return self._models[name or self.targets[0]].cheapest(base)
