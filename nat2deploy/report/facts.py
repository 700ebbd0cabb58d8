"""What a report shows, worked out from a run's files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nat2deploy.cost.fitting import predict_networks
from nat2deploy.cost.metric_names import metric_on
from nat2deploy.errors import UserError
from nat2deploy.report.formats import Evaluated, Measured, Network, Tuned
from nat2deploy.report.metrics import MEASURED, Axis, axes_of
from nat2deploy.report.reading import RunFiles
from nat2deploy.search.budget import Budget, budgets_on, cost_metric, parse_budgets

WITHIN = 0.05
"""What a prediction may be off by, relative to the measurement."""

_MOST_POINTS = 4000


@dataclass(frozen=True)
class Row:
    """A network of the front with everything that is known of it; ``values`` by axis, in metrics' units."""

    network: Network
    values: dict[str, float]
    tuned: Tuned | None
    exported: bool
    best: bool

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is special about it, in words."""
        precision = self.network.architecture.get("precision")
        said = {
            str(precision): precision is not None,
            "best": self.best,
            "in the bundle": self.exported,
            "fine-tuned": self.tuned is not None and self.tuned.kept,
            "fine-tuned, not kept": self.tuned is not None and not self.tuned.kept,
            "high trade-off": self.network.high_tradeoff,
            "over a budget": not self.network.feasible,
        }
        return tuple(word for word, true in said.items() if true)


@dataclass(frozen=True)
class Pair:
    """A network's predicted and measured latency in ms; ``target`` is empty for a single one without name.

    ``role``: of the ``front``, or ``held out`` from the table's calibration.
    """

    target: str
    id: str
    role: str
    predicted_ms: float
    measured: Measured

    @property
    def error(self) -> float:
        """Of the prediction, relative to the measurement."""
        return self.predicted_ms / self.measured.median_ms - 1


@dataclass(frozen=True)
class Errors:
    """How far predictions of a group of networks were off: mean and largest share, how many within 5 %."""

    name: str
    count: int
    mean: float
    worst: float
    within: int


@dataclass(frozen=True)
class Facts:
    """Everything that is drawn and written.

    ``rows`` are the front's networks, cheapest first; ``finished`` says whether the search was.
    ``points`` are the other judged networks, each with its last accuracy; ``hidden`` so many more are not
    drawn.
    """

    files: RunFiles
    rows: list[Row]
    axes: list[Axis]
    budgets: tuple[Budget, ...]
    finished: bool
    points: list[Evaluated]
    hidden: int = 0
    pairs: list[Pair] = field(default_factory=list)

    @property
    def chosen(self) -> list[Row]:
        """The networks worth a look: exported, fine-tuned, best, highest trade-offs; at most six."""
        ranked = sorted(
            (r for r in self.rows if r.remarks and r.remarks != ("over a budget",)),
            key=lambda r: (not r.exported, r.tuned is None, not r.best, not r.network.high_tradeoff),
        )[:6]
        return ranked or self.rows[-1:]

    @property
    def front(self) -> Row | None:
        """The network of the bundle, else the best one."""
        return next((r for r in self.chosen if r.exported or r.best), None)


def gather(files: RunFiles) -> Facts:
    """Work out what a run's files say."""
    budgets = _budgets(files)
    networks = list(files.front.networks) if files.front is not None else _front_so_far(files, budgets)
    exported = files.bundle.front_network if files.bundle is not None else None
    best = max((n for n in networks if n.feasible), key=lambda n: n.top1, default=None)
    rows = [
        Row(
            network,
            _values(network),
            files.tuned.get(network.id),
            exported is not None and network.id == exported,
            best is not None and network.id == best.id,
        )
        for network in networks
    ]
    points = _points(files.archive, {row.network.id for row in rows})
    shown = points[:: max(1, -(-len(points) // _MOST_POINTS))]
    largest: dict[str, float] = {}
    for values in (*(row.values for row in rows), *(point.values for point in shown)):
        for metric, value in values.items():
            largest[metric] = max(value, largest.get(metric, 0.0))
    limits = {budget.metric: budget.limit for budget in budgets if budget.metric != "top1"}
    for metric, limit in list(limits.items()):  # a median latency's budget is one on what is measured, too
        if metric.partition("@")[0] == "latency_ms":
            limits[metric.replace("latency_ms", MEASURED)] = limit
    axes = axes_of((m for m in largest if m != "top1"), largest, limits)
    return Facts(
        files,
        rows,
        axes,
        budgets,
        files.front is not None and files.front.complete,
        shown,
        len(points) - len(shown),
        [*_pairs(rows), *_held_out(files)],
    )


def errors_of(pairs: Sequence[Pair]) -> list[Errors]:
    """Sum up the pairs of each target and role."""
    groups: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        groups.setdefault((pair.target, pair.role), []).append(abs(pair.error))
    return [
        Errors(
            ("The front" if role == "front" else "Held out from the table's calibration")
            + (f", on {target}" if target else ""),
            len(errors),
            sum(errors) / len(errors),
            max(errors),
            sum(error <= WITHIN for error in errors),
        )
        for (target, role), errors in groups.items()
    ]


def _budgets(files: RunFiles) -> tuple[Budget, ...]:
    texts = files.front.budgets if files.front is not None else files.search.get("budgets")
    texts = texts or files.pipeline.get("budgets") or ()
    try:
        return budgets_on(parse_budgets([str(text) for text in texts]), _targets(files))
    except UserError:
        files.problems.append("the budgets cannot be read")
        return ()


def _targets(files: RunFiles) -> tuple[str, ...]:
    """The names of the targets, also of a pipeline's search that is yet to come."""
    profile = files.pipeline.get("profile") or {}
    return tuple(files.search.get("tables") or profile.get("tables") or ())


def _values(network: Network) -> dict[str, float]:
    measured = {
        f"{MEASURED}@{name}" if name else MEASURED: seen.median_ms for name, seen in network.latencies.items()
    }
    return {**measured, **network.costs}


def _front_so_far(files: RunFiles, budgets: Sequence[Budget]) -> list[Network]:
    """The non-dominated networks of a search that runs, judged with the last weights that all were."""
    whole = max((r.round for r in files.history if r.hypervolume is not None), default=None)
    if whole is None:
        return []
    settings = files.search.get("settings") or {}
    again = settings.get("reevaluate", True) and settings.get("adapt_epochs", 1.0) > 0
    holds = (e for e in files.archive if e.version == whole or (e.version < whole and not again))
    judged = list({e.id: e for e in holds if "top1" in e.values}.values())
    try:
        axes = _axes(settings, _targets(files), budgets, judged[0].values if judged else {})
    except UserError:
        files.problems.append("the objectives cannot be read")
        return []
    inside = [
        e for e in judged if all(b.metric not in e.values or b.kept_by(e.values[b.metric]) for b in budgets)
    ]
    costs = [m for m in axes if inside and all(m in e.values for e in inside)]
    keys = {e.id: (-e.values["top1"], *(e.values[m] for m in costs)) for e in inside}
    kept = [
        e
        for e in inside
        if not any(
            other != keys[e.id] and all(a <= b for a, b in zip(other, keys[e.id], strict=True))
            for other in keys.values()
        )
    ]
    kept.sort(key=lambda e: keys[e.id][1:])
    return [
        Network(
            id=e.id,
            architecture=e.architecture,
            top1=e.values["top1"],
            costs={k: v for k, v in e.values.items() if k != "top1"},
        )
        for e in kept
    ]


def _axes(
    settings: Mapping[str, Any],
    targets: tuple[str, ...],
    budgets: Sequence[Budget],
    known: Collection[str],
) -> list[str]:
    """The costs that the search minimises beside the error, as ``search.costs.Objectives`` has them."""
    if settings.get("accuracy_only"):
        return []
    given = [metric_on(cost_metric(str(metric)), targets) for metric in settings.get("objectives") or ()]
    named = [b.metric for b in budgets if b.metric != "top1"]
    latencies = [metric for metric in known if metric.partition("@")[0] == "latency_ms"]
    return given or named or latencies or ["macs"]


def _points(archive: Sequence[Evaluated], without: set[str]) -> list[Evaluated]:
    last = {e.id: e for e in archive if "top1" in e.values}
    return [e for key, e in last.items() if key not in without]


def _pairs(rows: Sequence[Row]) -> list[Pair]:
    found = []
    for row in rows:
        for target, seen in row.network.latencies.items():
            predicted = row.network.costs.get(f"latency_ms@{target}" if target else "latency_ms")
            if predicted is not None and seen.median_ms > 0:
                found.append(Pair(target, row.network.id, "front", predicted, seen))
    return found


def _held_out(files: RunFiles) -> list[Pair]:
    """The networks of each table that its calibration never saw."""
    found: list[Pair] = []
    for target, table in files.every_table:
        networks = [network for network in table.networks if network.role == "held-out"]
        if files.space is None or not networks:
            continue
        try:
            predicted = predict_networks(table, files.space, networks)
        except UserError:  # of another space
            continue
        for network, one in zip(networks, predicted, strict=True):
            seen = Measured.model_validate(network.model_dump())
            found.append(Pair(target, "", "held out", float(one), seen))
    return found
