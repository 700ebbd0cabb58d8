"""The front of a search, measured on the targets that are this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from nat2deploy.cost.metric_names import at
from nat2deploy.cost.table import LatencyTable
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.networks import measure_engines
from nat2deploy.progress import Report
from nat2deploy.run.front import Measured
from nat2deploy.search.archive import Evaluation
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.target import Target, fingerprint

Found = dict[str, dict[str, Measured]]
"""By the target's name, which is empty for a single one without, and by the network's id."""


def measure_front(
    networks: Sequence[Evaluation],
    tables: Mapping[str, LatencyTable],
    supernet: SuperNetwork,
    seed: int,
    report: Report,
) -> tuple[Found, str]:
    """Measure a front on each table's target that is this machine, and say of which ones it is not."""
    found: Found = {}
    others = []
    for name, table in tables.items():
        if is_here(table):
            found[name] = _measure(networks, table.target, supernet, seed, report, name)
        else:
            others.append(name)
    if not others:
        return found, ""
    if others == [""]:
        return found, "this machine is not the table's, so nothing was measured here"
    return found, f"this machine is not that of {', '.join(others)}, so nothing was measured for it here"


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
    target: Target,
    supernet: SuperNetwork,
    seed: int,
    report: Report,
    name: str,
) -> dict[str, Measured]:
    """Compile the front's networks and measure them interleaved on a target."""
    modules = {
        e.architecture.id: (supernet.extract(e.architecture), e.architecture.resolution) for e in networks
    }
    return measure_modules(modules, target, seed, report, "the front", f" on {name}" if name else "")


def measure_modules(
    modules: Mapping[str, tuple[nn.Module, int]],
    target: Target,
    seed: int,
    report: Report,
    what: str,
    where: str = "",
) -> dict[str, Measured]:
    """Compile plain networks, each with its pixels a side, and measure them interleaved on a target."""
    with pinned_threads(target):
        engines = {}
        for index, (identity, (module, resolution)) in enumerate(modules.items()):
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
