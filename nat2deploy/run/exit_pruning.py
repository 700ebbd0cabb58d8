"""AEP's pruning: which exits of a tuned network to keep, within the run's budgets."""

from __future__ import annotations

from nat2deploy.run.exit_costs import ExitCosts
from nat2deploy.run.finetune_report import ExitState
from nat2deploy.search.budget import Budget, violation
from nat2deploy.training.exits import Exits, JudgedExits


class Pruning:
    """Chooses a state of a network's exits by validation accuracy, and by costs.

    Args:
        costs: of the network's states.
        budgets: of the run, whose metrics name their target where there are several.
        by: ``("none",)``: all exits stay on. ``("accuracy",)``: the most accurate state wins, of equal ones
            that with the lowest loss (the authors' rule). Cost metrics: of the states that are at most
            ``tolerance`` less accurate than the best one, the cheapest by the first metric wins, then by the
            next.
        tolerance: a share of 1.

    States over a budget are left out; where all are, those that are least over remain.
    """

    def __init__(
        self, costs: ExitCosts, budgets: tuple[Budget, ...], by: tuple[str, ...], tolerance: float
    ) -> None:
        self.costs = costs
        self.budgets = budgets
        self.by = by
        self.metrics = () if by in (("none",), ("accuracy",)) else by
        self.tolerance = tolerance

    def choose(self, judged: JudgedExits) -> Exits:
        """The exits to keep."""
        if self.by == ("none",):
            return judged.exits
        over = {exits: violation(self.budgets, self._values(judged, exits)) for exits in judged.states}
        least = min(over.values())
        allowed = [exits for exits in judged.states if over[exits] <= least]
        best = max(judged.states[exits].top1 for exits in allowed)
        lost = self.tolerance if self.metrics else 0.0
        near = [exits for exits in allowed if judged.states[exits].top1 >= best - lost]

        def order(exits: Exits) -> tuple[float, ...]:
            values, accuracy = self.costs.values(exits), judged.states[exits]
            return (*(values[m] for m in self.metrics), -accuracy.top1, accuracy.loss, values["macs"])

        return min(near, key=order)

    def states(self, judged: JudgedExits, kept: Exits) -> tuple[ExitState, ...]:
        """All that there was to choose from, fewest exits first."""
        values = {exits: self._values(judged, exits) for exits in judged.states}
        fits = {exits: violation(self.budgets, values[exits]) == 0.0 for exits in values}
        keys = {
            exits: (-judged.states[exits].top1, *(values[exits][m] for m in self.metrics))
            for exits in values
            if fits[exits]
        }
        return tuple(
            ExitState(
                exits=exits,
                top1=judged.states[exits].top1,
                costs={metric: value for metric, value in values[exits].items() if metric != "top1"},
                measured=dict(self.costs.measured.get(exits, {})),
                feasible=fits[exits],
                non_dominated=exits in keys and not any(_dominates(k, keys[exits]) for k in keys.values()),
                kept=exits == kept,
            )
            for exits in judged.states
        )

    def _values(self, judged: JudgedExits, exits: Exits) -> dict[str, float]:
        return {"top1": judged.states[exits].top1, **self.costs.values(exits)}


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
