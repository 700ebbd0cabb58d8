"""What each on/off state of a network's exits costs: by the run's tables, or measured here."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from nat2deploy.blocks import SubNetwork
from nat2deploy.cost.metric_names import at, metric_on
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.progress import Report
from nat2deploy.run.cost_source import TargetTables, precisions, table_of
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.front import Measured
from nat2deploy.run.measure_front import is_here, measure_modules, measured_values
from nat2deploy.search.budget import Budget
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.training.exits import Exits, space_with_exits, with_exits

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
        tables: of the architecture's precision, by the target's name (empty for a single one without).
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
        # A table's precision is the network's; the models say it themselves.
        architecture = replace(with_exits(self.architecture, exits), precision=None)
        found: dict[str, float] = {}
        for name, model in self._models.items():
            values = model.values(architecture)
            found |= {_named(metric, name): value for metric, value in values.items()}
        for name, seen in self.measured.get(exits, {}).items():
            found |= measured_values(name, seen)
        return found

    @cached_property
    def _models(self) -> dict[str, CostModel]:
        """One a target; without latencies where the table does not know the exits of this space."""
        return _models(self.space, self.classes, self.tables)

    def check(self, metrics: tuple[str, ...], budgets: tuple[Budget, ...]) -> None:
        """Check that what is asked for is known of every state.

        Raises:
            UserError: names the cost that is not.
        """
        known = self.values(self.architecture.exits)
        _check_known((*metrics, *(budget.metric for budget in budgets)), known, bool(self.tables))


def check_before_search(
    config: FinetuneConfig, space: SearchSpace, tables: TargetTables, budgets: tuple[Budget, ...]
) -> None:
    """Check, before there are networks, that what exits are to be pruned by will be known of them.

    Args:
        config: of the fine-tuning; the plain one asks for nothing.
        space: that is searched.
        tables: of the search.
        budgets: of the search, whose metrics name their target where there are several.

    Raises:
        UserError: names the cost that will not be.
    """
    if config.method != "aep":
        return
    targets = tuple(name for name in tables if name)
    words = () if config.prune in (("none",), ("accuracy",)) else config.prune
    asked = (*(metric_on(word, targets) for word in words), *(budget.metric for budget in budgets))
    for precision in precisions(tables) or (None,):
        chosen = {name: table_of(held, precision) for name, held in tables.items()}
        # How many classes there are does not decide on which costs are known.
        models = _models(space_with_exits(space), 1, chosen)
        known = [_named(metric, name) for name, model in models.items() for metric in model.metrics]
        measured = {name for name, table in chosen.items() if config.measure and is_here(table)}
        predicted = [
            metric
            for metric in asked
            if not (metric.startswith("latency") and metric.partition("@")[2] in measured)
        ]
        _check_known(predicted, known, bool(tables))


def _models(space: SearchSpace, classes: int, tables: Mapping[str, LatencyTable]) -> dict[str, CostModel]:
    """One a target; without latencies where the table does not know the exits of this space."""
    models = {}
    for name, table in tables.items():
        try:
            models[name] = CostModel(space, classes, table)
        except UserError:
            models[name] = CostModel(space, classes, None, table.target)
    return models or {"": CostModel(space, classes, None)}


def _named(metric: str, target: str) -> str:
    return at(metric, target) if target else metric


def _check_known(asked: Iterable[str], known: Collection[str], with_table: bool) -> None:
    for metric in asked:
        if metric == "top1" or metric in known:
            continue
        base, _, target = metric.partition("@")
        if not with_table:
            raise UserError(f"'{metric}' is not known without a latency table; search with one")
        if base == "energy_mj" and _named("latency_ms", target) in known:
            raise UserError(
                f"'{metric}' is not known: the latency table says nothing of energy; prune by another cost, "
                "or profile again where the machine measures it"
            )
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
    """Measure every state of an architecture's exits on each table's target, which is this machine.

    Latency does not depend on weights, so they are fresh ones.
    """
    states = exit_states(architecture)
    found: dict[Exits, dict[str, Measured]] = {state: {} for state in states}
    for name, table in tables.items():
        modules = {}
        for state in states:
            one = with_exits(architecture, state)
            modules[one.id] = (
                SubNetwork(plan_network(space, one, classes)).eval(),
                one.resolution,
                table.target,
            )
        seen = measure_modules(modules, seed, report, "exits", f" on {name}" if name else "")
        for state in states:
            found[state][name] = seen[with_exits(architecture, state).id]
    return found
