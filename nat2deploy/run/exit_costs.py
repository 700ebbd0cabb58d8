"""What each on/off state of a network's exits costs: by the run's tables, or measured here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from nat2deploy.blocks import SubNetwork
from nat2deploy.cost.metric_names import at
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.progress import Report
from nat2deploy.run.front import Measured
from nat2deploy.run.measure_front import is_here, measure_modules, measured_values
from nat2deploy.search.budget import Budget
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.training.exits import Exits, with_exits

StateLatencies = Mapping[Exits, Mapping[str, Measured]]
"""Measured latencies of states, by the target's name."""


def exit_states(architecture: Architecture) -> list[Exits]:
    """Every on/off state of an architecture's exits but the one with all off."""
    exits = architecture.exits
    return [s for count in range(1, len(exits) + 1) for s in itertools.combinations(exits, count)]


@dataclass(frozen=True)
class ExitCosts:
    """Costs of one architecture's exits, in any state.

    Args:
        space: of the architecture; the tables may lack blocks of it where exits were added to a space
            without early ones.
        classes: outputs of a classifier.
        tables: by the target's name, which is empty for a single one without.
        architecture: with all exits on.
        measured: latencies that go before predicted ones.
    """

    space: SearchSpace
    classes: int
    tables: Mapping[str, LatencyTable]
    architecture: Architecture
    measured: StateLatencies

    def values(self, exits: Exits) -> dict[str, float]:
        """Every known cost of a state, by metric."""
        architecture = with_exits(self.architecture, exits)
        found: dict[str, float] = {}
        for name, model in self._models.items():
            values = model.values(architecture)
            found |= {at(metric, name) if name else metric: value for metric, value in values.items()}
        for name, seen in self.measured.get(exits, {}).items():
            found |= measured_values(name, seen)
        return found

    @cached_property
    def _models(self) -> dict[str, CostModel]:
        """One a target; without latencies where the table does not know the exits of this space."""
        models = {}
        for name, table in self.tables.items():
            try:
                models[name] = CostModel(self.space, self.classes, table)
            except UserError:
                models[name] = CostModel(self.space, self.classes, None, table.target)
        return models or {"": CostModel(self.space, self.classes, None)}

    def check(self, metrics: tuple[str, ...], budgets: tuple[Budget, ...]) -> None:
        """Check that what is asked for is known of every state.

        Raises:
            UserError: names the cost that is not.
        """
        known = self.values(self.architecture.exits)
        for metric in (*metrics, *(budget.metric for budget in budgets if budget.metric != "top1")):
            if metric in known:
                continue
            if not self.tables:
                raise UserError(f"'{metric}' is not known without a latency table; search with one")
            raise UserError(
                f"'{metric}' is not known of networks with added exits: the run's table is of a space "
                "without them, and nothing was measured; search in one with early exits, such as nano-ee-d"
            )


def measure_states(
    space: SearchSpace,
    architecture: Architecture,
    classes: int,
    tables: Mapping[str, LatencyTable],
    seed: int,
    report: Report,
) -> dict[Exits, dict[str, Measured]]:
    """Measure every state of an architecture's exits on each table's target that is this machine.

    Latency does not depend on weights, so they are fresh ones.
    """
    states = exit_states(architecture)
    found: dict[Exits, dict[str, Measured]] = {state: {} for state in states}
    for name, table in tables.items():
        if not is_here(table):
            continue
        modules = {}
        for state in states:
            one = with_exits(architecture, state)
            modules[one.id] = (SubNetwork(plan_network(space, one, classes)).eval(), one.resolution)
        seen = measure_modules(modules, table.target, seed, report, "exits", f" on {name}" if name else "")
        for state in states:
            found[state][name] = seen[with_exits(architecture, state).id]
    return found
