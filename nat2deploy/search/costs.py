"""The costs that a search optimises and limits, exact and vectorised over genes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.metric_names import metric_on
from nat2deploy.cost.precisions import CostSource
from nat2deploy.errors import UserError
from nat2deploy.search.budget import Budget, budgets_on, format_beside
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding

Floats = NDArray[np.float64]


class Objectives:
    """What is minimised: top-1 error, then each cost metric, all within the budgets.

    ``metrics`` names the cost objectives; without any they are those that budgets limit, else the latency of
    each table that is given, else MACs. With ``accuracy_only`` the error alone is minimised and costs are
    only limited; ``axes`` then still names the costs to show and to spread over.

    Raises:
        UserError: a latency is asked for without a table, or a cost that is of no target or of several.
    """

    def __init__(
        self,
        model: CostSource,
        encoding: IntegerEncoding,
        budgets: tuple[Budget, ...],
        metrics: tuple[str, ...] = (),
        accuracy_only: bool = False,
    ) -> None:
        self.model = model
        self.encoding = encoding
        self.budgets = budgets_on(budgets, model.targets)
        self.cost_budgets = tuple(budget for budget in self.budgets if budget.metric != "top1")
        self.top1_budgets = tuple(budget for budget in self.budgets if budget.metric == "top1")
        metrics = tuple(dict.fromkeys(metric_on(metric, model.targets) for metric in metrics))
        named = tuple(budget.metric for budget in self.cost_budgets)
        latencies = tuple(metric for metric in model.metrics if metric.partition("@")[0] == "latency_ms")
        default = latencies or ("macs",)
        self.axes: tuple[str, ...] = metrics or tuple(dict.fromkeys(named)) or default
        self.metrics: tuple[str, ...] = () if accuracy_only else metrics or named or default
        for metric in (*self.axes, *named):
            if metric not in model.metrics:
                raise UserError(_missing(metric, with_table=bool(latencies)))

    def __len__(self) -> int:
        """Number of objectives, the error included."""
        return 1 + len(self.metrics)

    def costs(self, genes: Genes) -> dict[str, Floats]:
        """All costs of canonical genes [N, G], by metric, each [N]."""
        return {
            key: np.asarray(v, dtype=np.float64)
            for key, v in self.model.costs_of_genes(genes, self.encoding).items()
        }

    def values(self, architecture: Architecture, top1: float) -> dict[str, float]:
        """All metrics of one judged architecture, as an archive line keeps them."""
        genes = self.encoding.encode(architecture)[None]
        return {"top1": top1, **{key: float(v[0]) for key, v in self.costs(genes).items()}}

    def costs_of(self, architectures: list[Architecture]) -> list[dict[str, float]]:
        """All costs of architectures, by metric."""
        if not architectures:
            return []
        costs = self.costs(self.encoding.encode_all(architectures))
        return [{key: float(v[row]) for key, v in costs.items()} for row in range(len(architectures))]

    def matrix(self, errors: Floats, costs: Mapping[str, Floats]) -> Floats:
        """Objectives [N, M], minimised, from errors [N] and costs by metric."""
        return np.stack([errors, *(costs[metric] for metric in self.metrics)], axis=1)

    def cost_violations(self, costs: Mapping[str, Floats]) -> Floats:
        """Violations [N, cost budgets] of costs by metric; at most 0 when kept."""
        columns = [(costs[budget.metric] - budget.limit) / budget.limit for budget in self.cost_budgets]
        rows = len(next(iter(costs.values())))
        return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))

    def check_reachable(self) -> None:
        """Refuse a budget that not even the cheapest architecture keeps.

        Raises:
            UserError: names the budget and what the cheapest would cost.
        """
        for budget in self.cost_budgets:
            architecture, cost = self.model.cheapest(budget.metric)
            if not budget.kept_by(cost):
                raise UserError(
                    f"budget '{budget.text}' cannot be kept: the cheapest architecture of space "
                    f"'{self.encoding.space.name}' costs {format_beside(budget, cost)} "
                    f"({architecture}); raise the budget or use another space"
                )


def _missing(metric: str, *, with_table: bool) -> str:
    """Why a cost is not known, and what to do."""
    if metric.startswith("energy"):
        return "the latency table says nothing of energy; profile again where the machine measures it"
    if not with_table:
        return "a latency budget needs a table; make one with `nat2deploy profile`, give --table"
    return "the latency table says nothing of percentiles; profile again with this version"
