"""Costs where an architecture chooses its precision, too: each has tables of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.targets import TargetCosts
from nat2deploy.errors import UserError
from nat2deploy.precision import Precision
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding


class PrecisionCosts:
    """As ``CostModel`` or ``TargetCosts``, of architectures with a precision: that one's costs.

    Args:
        models: by precision, all of one space and of the same targets; at least one.
    """

    def __init__(self, models: Mapping[Precision, CostModel | TargetCosts]) -> None:
        self._models = dict(models)
        self._first = next(iter(self._models.values()))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those to choose from."""
        return tuple(self._models)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets' names; none where there is one without."""
        return self._first.targets

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that can be asked for: those that every precision has."""
        return tuple(m for m in self._first.metrics if all(m in one.metrics for one in self._models.values()))

    def values(self, architecture: Architecture) -> dict[str, float]:
        """Return the costs of one architecture by metric.

        Raises:
            UserError: it has no precision, or another one; or a table does not hold its resolution, width or
                one of its blocks.
        """
        model = None if architecture.precision is None else self._models.get(architecture.precision)
        if model is None:
            have = " or ".join(f'"precision": "{precision}"' for precision in self._models)
            raise UserError(f"the latency tables are of several precisions; give the architecture {have}")
        values = model.values(replace(architecture, precision=None))
        return {metric: values[metric] for metric in self.metrics}

    def costs_of_genes(self, genes: Genes, encoding: IntegerEncoding) -> dict[str, NDArray[Any]]:
        """Return the costs of canonical genes [N, G], each metric [N].

        Raises:
            UserError: a table does not hold a resolution, width or block that occurs.
            ValueError: the encoding is of other resolutions, widths, choices or precisions.
        """
        if encoding.precisions != self.precisions:
            raise ValueError(f"the encoding chooses from {encoding.precisions}, not from {self.precisions}")
        chosen = genes[:, encoding.precision_gene]
        found = [model.costs_of_genes(genes, encoding) for model in self._models.values()]
        rows = np.arange(len(genes))
        return {metric: np.stack([one[metric] for one in found])[chosen, rows] for metric in self.metrics}

    def cheapest(self, metric: str) -> tuple[Architecture, float]:
        """Return the architecture of the whole space that costs least, its precision included, and its cost.

        Raises:
            UserError: no such metric, or a table does not hold all resolutions and widths of the space.
        """
        if metric not in self.metrics:
            raise UserError(f"no cost metric '{metric}' here; use one of {', '.join(self.metrics)}")
        found = [(*model.cheapest(metric), precision) for precision, model in self._models.items()]
        architecture, cost, precision = min(found, key=lambda one: one[1])
        return replace(architecture, precision=precision), cost


CostSource = CostModel | TargetCosts | PrecisionCosts
"""What a search asks for costs."""
