"""The front of a search, measured on the targets that are this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from torch import nn

from nat2deploy.cost.metric_names import at
from nat2deploy.cost.table import LatencyTable
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.networks import measure_engines
from nat2deploy.progress import Report
from nat2deploy.run.cost_source import TargetTables, table_of
from nat2deploy.run.front import Front, Measured, load_front
from nat2deploy.search.archive import Evaluation
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.target import Target, fingerprint

Found = dict[str, dict[str, Measured]]
"""By the target's name, which is empty for a single one without, and by the network's id."""


def measure_front(
    networks: Sequence[Evaluation],
    tables: TargetTables,
    supernet: AnySuperNetwork,
    seed: int,
    report: Report,
    before: Found,
) -> tuple[Found, str]:
    """Measure a front on each table's target that is this machine, and say of which ones it is not.

    A target that cannot run here now, such as one of more threads than there are cores for, is named, too.
    What was measured ``before`` stays: measured anew, a network at a budget's edge might change sides.
    """
    found = dict(before)
    others, words = [], []
    for name, held in tables.items():
        if name in found:
            continue
        if not is_here(held[0]):  # its other precisions are of the same machine
            others.append(name)
            continue
        try:
            found[name] = _measure(networks, held, supernet, seed, report, name)
        except UserError as error:
            words.append(f"nothing was measured{f' for {name}' if name else ''}: {error}")
    if others == [""]:
        words.append("this machine is not the table's, so nothing was measured here")
    elif others:
        words.append(f"this machine is not that of {', '.join(others)}, so nothing was measured for it here")
    return found, "; ".join(words)


def measured_before(path: Path, networks: Sequence[str], names: Collection[str]) -> Found:
    """What a finished front of these networks, in a file, holds of the targets that were measured."""
    held = _finished(path, networks)
    if held is None:
        return {}
    found: Found = {}
    for name in names:
        seen = {n.id: n.measured_on.get(name) if name else n.measured for n in held.networks}
        measured = {identity: one for identity, one in seen.items() if one is not None}
        if measured and len(measured) == len(seen):
            found[name] = measured
    return found


def is_finished(path: Path, networks: Sequence[str]) -> bool:
    """Whether a file holds the front of a finished search, of these networks."""
    return _finished(path, networks) is not None


def _finished(path: Path, networks: Sequence[str]) -> Front | None:
    try:
        held = load_front(path)
    except UserError:
        return None
    same = held.complete and [network.id for network in held.networks] == list(networks)
    return held if same else None


def is_here(table: LatencyTable) -> bool:
    """Whether a table's target is this machine."""
    try:
        return table.fingerprint.same_machine(fingerprint(table.target.device))
    except UserError:  # there is no such GPU
        return False


def measured_values(name: str, seen: Measured) -> dict[str, float]:
    """Return a network's measured latencies by metric."""
    values = {
        "latency_ms": seen.median_ms,
        "latency_p95_ms": seen.p95_ms,
        "latency_p99_ms": seen.p99_ms,
    }
    return {at(metric, name) if name else metric: value for metric, value in values.items()}


def _measure(
    networks: Sequence[Evaluation],
    tables: Sequence[LatencyTable],
    supernet: AnySuperNetwork,
    seed: int,
    report: Report,
    name: str,
) -> dict[str, Measured]:
    """Measure the front's networks, each in its precision."""
    modules = {}
    for architecture in (evaluation.architecture for evaluation in networks):
        target = table_of(tables, architecture.precision).target
        modules[architecture.id] = (supernet.extract(architecture), architecture.resolution, target)
    return measure_modules(modules, seed, report, "the front", f" on {name}" if name else "")


def measure_modules(
    modules: Mapping[str, tuple[nn.Module, int, Target]],
    seed: int,
    report: Report,
    what: str,
    where: str = "",
) -> dict[str, Measured]:
    """Compile plain networks, each with its pixels a side and its target, and measure them interleaved.

    The targets differ in their precision alone.
    """
    with pinned_threads(next(iter(modules.values()))[2]):
        engines = {}
        for index, (identity, (module, resolution, target)) in enumerate(modules.items()):
            shape = (target.batch, 3, resolution, resolution)
            engines[identity] = compile_model(
                module, target, shape, calibration=random_calibration(target, shape, seed)
            )
            report(f"compile {what}{where}", index + 1, len(modules))
        measurement = measure_engines(
            engines,
            seed=seed,
            precision=0.005,
            time_limit_s=max(10.0, 1.0 * len(engines)),
            progress=lambda share, text: report(f"measure {what}{where}", share, 1.0, text),
        )
    return {identity: Measured(**summary.latency) for identity, summary in measurement.summaries.items()}
