"""What a search takes from an earlier one's archive: networks to begin with, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from nat2deploy.files import parse, read_json, write_json
from nat2deploy.precision import Precision
from nat2deploy.search.archive import Evaluation
from nat2deploy.search.costs import Objectives
from nat2deploy.search.survival import Floats
from nat2deploy.search.update import best
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace


@dataclass(frozen=True)
class Known:
    """An accuracy with the weights that a search begins with."""

    top1: float
    loss: float


_NO_VERSION = -1

WarmStart = dict[Architecture, Known | None]
"""The architectures of the first archive; None: to be judged."""


def choose_start(
    earlier: Sequence[Evaluation],
    objectives: Objectives,
    count: int,
    *,
    version: int | None,
    without: Sequence[Architecture],
    seed: int,
    directions: Floats | None,
) -> WarmStart:
    """Choose the best architectures of an earlier archive by a new search's objectives.

    Costs are looked up anew; accuracies are each architecture's last one, whatever the weights and data
    behind it, and are kept only where they are of ``version``. Networks over a budget on costs are left out.

    Args:
        earlier: oldest first; those that are not in the new search's space are left out.
        objectives: the new search's. Networks take the precision that they had, where it can be chosen; those
            without count as fp32, as they were judged.
        count: the most to choose.
        version: of the weights that the new search begins with, None when no accuracy holds for it.
        without: architectures that are in the first archive anyway; their accuracies are kept, too.
        seed: drives ties of survival.
        directions: reference directions of survival.
    """
    last = _last_of_each(
        [e for e in earlier if objectives.encoding.space.contains(e.architecture)],
        objectives.encoding.precisions,
    )
    costs = objectives.costs_of(list(last))
    found = [
        replace(e, values={"top1": e.values["top1"], **values})
        for e, values in zip(last.values(), costs, strict=True)
    ]
    inside = [
        e
        for e in found
        if e.architecture not in without
        and all(budget.kept_by(e.values[budget.metric]) for budget in objectives.cost_budgets)
    ]
    chosen = {e.architecture for e in best(inside, objectives, count, seed=seed, directions=directions)}
    known = {e.architecture: Known(e.values["top1"], e.loss) for e in found if e.version == version}
    return {a: known.get(a) for a in last if a in chosen or (a in without and a in known)}


def _last_of_each(
    evaluations: Sequence[Evaluation], precisions: tuple[Precision, ...]
) -> dict[Architecture, Evaluation]:
    """The last evaluation of each architecture as a search over ``precisions`` has it.

    One that was judged in another precision is of no version: its accuracy does not hold.
    """
    judged, others = {}, {}
    for evaluation in evaluations:
        before = evaluation.architecture.precision or "fp32"
        now: Precision | None = None
        if precisions:
            now = before if before in precisions else precisions[0]
        architecture = replace(evaluation.architecture, precision=now)
        if (now or "fp32") == before:
            judged[architecture] = replace(evaluation, architecture=architecture)
        else:
            others[architecture] = replace(evaluation, architecture=architecture, version=_NO_VERSION)
    return {**others, **judged}


class _Network(BaseModel):
    model_config = ConfigDict(extra="forbid")

    architecture: dict[str, Any]
    top1: float | None
    loss: float | None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    networks: list[_Network]


def save_start(start: WarmStart, path: Path) -> None:
    """Write a warm start atomically: going on begins with the same, whatever the earlier run adds."""
    networks = [
        _Network(
            architecture=architecture.to_json(),
            top1=None if known is None else known.top1,
            loss=None if known is None else known.loss,
        )
        for architecture, known in start.items()
    ]
    write_json(path, _File(networks=networks).model_dump(mode="json"))


def load_start(path: Path, space: SearchSpace) -> WarmStart:
    """Read a warm start.

    Raises:
        UserError: missing or broken.
    """
    file = parse(_File, read_json(path, "warm start"), f"warm start {path}")
    return {
        parse_architecture(space, network.architecture): None
        if network.top1 is None or network.loss is None
        else Known(network.top1, network.loss)
        for network in file.networks
    }
