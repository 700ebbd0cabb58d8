"""The costs that a search optimises and limits, exact and vectorised over genes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.search.budget import Budget, format_cost
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding

Floats = NDArray[np.float64]


class Objectives:
    """What is minimised: top-1 error, then each cost metric, all within the budgets.

    ``metrics`` names the cost objectives; without any they are those that budgets limit, else latency
    where a table is given, else MACs. With ``accuracy_only`` the error alone is minimised and costs are only
    limited; ``axes`` then still names the costs to show and to spread over.

    Raises:
        UserError: a latency is asked for without a table.
    """

    def __init__(
        self,
        model: CostModel,
        encoding: IntegerEncoding,
        budgets: tuple[Budget, ...],
        metrics: tuple[str, ...] = (),
        accuracy_only: bool = False,
    ) -> None:
        self.model = model
        self.encoding = encoding
        self.budgets = budgets
        self.cost_budgets = tuple(budget for budget in budgets if budget.metric != "top1")
        self.top1_budgets = tuple(budget for budget in budgets if budget.metric == "top1")
        named = tuple(budget.metric for budget in self.cost_budgets)
        default = "latency_ms" if model.table is not None else "macs"
        self.axes: tuple[str, ...] = metrics or tuple(dict.fromkeys(named)) or (default,)
        self.metrics: tuple[str, ...] = () if accuracy_only else metrics or named or (default,)
        for metric in (*self.axes, *named):
            if model.table is None and metric.startswith("latency"):
                raise UserError(
                    "a latency budget needs a table; make one with `nat2deploy profile`, give --table"
                )
            if metric not in (*model.metrics, "top1"):
                raise UserError(
                    "the latency table says nothing of percentiles; profile again with this version"
                )

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
                    f"'{self.encoding.space.name}' costs {format_cost(budget.metric, cost)} "
                    f"({architecture}); raise the budget or use another space"
                )
