"""What the page's pictures are drawn from, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from nat2deploy.report.anatomy import Anatomy
from nat2deploy.report.drawing import draw
from nat2deploy.report.early_exits import early_exits
from nat2deploy.report.facts import Facts, Row
from nat2deploy.report.metrics import MEASURED, axes_of

Payload = dict[str, Any]


def payload_of(facts: Facts) -> Payload:
    """Return everything that is drawn: numbers in the metrics' own units, accuracies as shares."""
    files = facts.files
    return {
        "axes": [{**asdict(axis), "label": axis.label} for axis in facts.axes],
        "front": [_network(row, facts) for row in facts.rows],
        "points": [
            {"id": e.id, "top1": e.values["top1"], "values": e.values, "exit": exit_of(e.architecture)}
            for e in facts.points
        ],
        "pairs": [
            {
                "target": pair.target,
                "id": pair.id,
                "role": pair.role,
                "predicted": pair.predicted_ms,
                "measured": pair.measured.median_ms,
                "low": pair.measured.ci_low_ms,
                "high": pair.measured.ci_high_ms,
            }
            for pair in facts.pairs
        ],
        "rounds": [
            {
                "round": entry.round,
                "hypervolume": entry.hypervolume,
                "tau": entry.tau,
                "surrogate": entry.surrogate,
                "evaluations": entry.evaluations,
                "best": None if entry.best is None else entry.best.top1,
            }
            for entry in files.history
        ],
        "parts": _parts(facts),
        "curves": [
            {
                "id": tuned.id,
                "epochs": [epoch.model_dump() for epoch in tuned.epochs_done],
            }
            for tuned in files.tuned.values()
            if tuned.epochs_done
        ],
        "exits": [
            {
                "id": tuned.id,
                "states": [
                    {**state.model_dump(exclude={"measured"}), "measured": _medians(state.measured)}
                    for state in tuned.states
                ],
            }
            for tuned in files.tuned.values()
            if tuned.states
        ],
        "early_exits": None if files.bundle is None else early_exits(files.bundle),
        "many_exits": files.space is not None and files.space.exits != "final",
    }


def embedded(payload: Payload) -> str:
    """Return JSON that may stand inside a script element: without markup, NaN or infinity."""
    text = json.dumps(_finite(payload), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def first_axis(payload: Payload) -> Payload:
    """The axis that is shown first: one that is predicted for all networks, by preference under a budget."""
    axes: list[Payload] = payload["axes"]
    predicted = [axis for axis in axes if not axis["metric"].startswith(MEASURED)] or axes
    return next((axis for axis in predicted if axis["limit"] is not None), predicted[0])


def exit_of(architecture: dict[str, Any]) -> str:
    """The stages that an architecture has a classifier behind, such as ``3`` or ``2+4``; empty if unknown."""
    exits, depths = architecture.get("exits"), architecture.get("d")
    if not exits and isinstance(depths, list):
        exits = [len(depths)]
    return "+".join(str(stage) for stage in exits) if isinstance(exits, list) else ""


def _network(row: Row, facts: Facts) -> Payload:
    network, tuned = row.network, row.tuned
    drawing = draw(network.architecture, facts.files.space)
    test = tuned.test if tuned is not None else None
    return {
        "id": network.id,
        "top1": network.top1,
        "values": row.values,
        "feasible": network.feasible,
        "remarks": list(row.remarks),
        "text": "" if drawing is None else drawing.summary,
        "exit": exit_of(network.architecture),
        "test": None if test is None else test.model_dump(),
    }


def _parts(facts: Facts) -> Payload:
    """What each part of the chosen networks costs, and in which units that is shown."""
    files = facts.files
    if files.space is None:
        return {"metrics": [], "names": [], "networks": {}}
    classes = files.supernet.classes if files.supernet is not None else 1
    anatomy = Anatomy(files.space, classes, files.tables)
    networks = {row.network.id: anatomy.parts(row.network.architecture) for row in facts.chosen}
    networks = {key: parts for key, parts in networks.items() if parts}
    largest = {
        metric: max(
            (part.costs.get(metric, 0.0) for parts in networks.values() for part in parts), default=0.0
        )
        for metric in anatomy.metrics
        if any(metric in part.costs for parts in networks.values() for part in parts)
    }
    names = {part.name for parts in networks.values() for part in parts}
    return {
        "metrics": [{**asdict(axis), "label": axis.label} for axis in axes_of(largest, largest, {})],
        "names": sorted(names, key=_place),
        "networks": {key: [asdict(part) for part in parts] for key, parts in networks.items()},
    }


def _place(part: str) -> tuple[int, str, int]:
    """Where a part stands in a network: the stem, the stages, the classifiers."""
    kind, _, number = part.partition(" ")
    return ("stem", "stage").index(kind) if kind in ("stem", "stage") else 2, kind, int(number or 0)


def _medians(measured: dict[str, Any]) -> dict[str, float]:
    return {name: seen.median_ms for name, seen in measured.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
