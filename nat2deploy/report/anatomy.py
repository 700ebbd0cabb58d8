"""What each part of a network costs: its stem, its stages, its exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nat2deploy.cost.latency import BlockLatency
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import NetworkPlan, added, plan_network, sum_signature
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature


@dataclass(frozen=True)
class Part:
    """A part of a network; ``costs`` by metric, latencies as the table predicts them."""

    name: str
    costs: dict[str, float]


class Anatomy:
    """Takes networks of a space apart.

    Args:
        space: the networks' space.
        classes: outputs of the classifier.
        tables: latency tables by the target's name, several of one of different precisions; what one does not
            hold is left out.
    """

    def __init__(
        self, space: SearchSpace, classes: int, tables: Mapping[str, Sequence[LatencyTable]]
    ) -> None:
        self.space = space
        self.classes = classes
        self._latencies = {
            f"latency_ms@{name}" if name else "latency_ms": {
                table.target.precision: BlockLatency(table) for table in held
            }
            for name, held in tables.items()
        }

    @property
    def metrics(self) -> tuple[str, ...]:
        """The costs that are taken apart."""
        return (*self._latencies, "macs", "params")

    def plan(self, architecture: dict[str, Any]) -> NetworkPlan | None:
        """The blocks of an architecture as files hold it; None when it is not of the space."""
        try:
            return plan_network(self.space, parse_architecture(self.space, architecture), self.classes)
        except (UserError, ValueError):
            return None

    def parts(self, architecture: dict[str, Any]) -> list[Part]:
        """The parts in order, whose costs add up to the network's; empty when it is not of the space."""
        plan = self.plan(architecture)
        if plan is None:
            return []
        parsed = parse_architecture(self.space, architecture)
        latencies = {
            metric: held[parsed.precision] if parsed.precision in held else next(iter(held.values()))
            for metric, held in self._latencies.items()
            if parsed.precision is None or parsed.precision in held
        }
        found = [_part("stem", plan.stem, latencies, with_call=True)]
        for stage, layers in enumerate(plan.stages):
            blocks = [block for layer in layers for block in layer.values()]
            one_sum = sum_signature(self.space, parsed.resolution, parsed.width, stage)
            for position, layer in enumerate(layers):
                skips = len(added(position)) if plan.dense else 0
                blocks += [one_sum] * (len(layer) - 1 + skips)
            found.append(_part(f"stage {stage + 1}", blocks, latencies))
        several = len(plan.exits) > 1
        for stage, exit_ in plan.exits.items():
            found.append(_part(f"exit {stage}" if several else "head", exit_, latencies))
        return found


def _part(
    name: str,
    blocks: Sequence[BlockSignature],
    latencies: Mapping[str, BlockLatency],
    *,
    with_call: bool = False,
) -> Part:
    costs: dict[str, float] = {
        "macs": sum(block.macs for block in blocks),
        "params": sum(block.params for block in blocks),
    }
    for metric, latency in latencies.items():
        call_ms = latency.intercept_ms if with_call else 0.0
        try:
            costs[metric] = call_ms + sum(latency.block_ms(block) for block in blocks)
        except UserError:  # a table of fewer resolutions
            continue
    return Part(name, costs)
