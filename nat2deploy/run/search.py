"""The front door of the search: from files to a front with predicted and measured costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import LatencyTable, load_table
from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.networks import measure_engines
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import SearchConfig, SearchedSpace
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import Front, FrontNetwork, Measured, save_front
from nat2deploy.search.archive import Evaluation
from nat2deploy.search.budget import Budget, feasible, format_cost, parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.nat2 import Nat2Search, Status
from nat2deploy.search.regressors import check_installed
from nat2deploy.search.searchers import check_searcher
from nat2deploy.search.tradeoff import high_tradeoff
from nat2deploy.search.update import objective_matrix
from nat2deploy.search.weights import SearchWeights
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, supernet_info
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.target import fingerprint


@dataclass(frozen=True)
class _Inputs:
    """What a search config names, read and checked."""

    info: SuperNetworkInfo
    space: SearchSpace
    table: LatencyTable | None
    budgets: tuple[Budget, ...]
    data: ImageData
    objectives: Objectives


def search(config: SearchConfig, out: Path, report: Report = silent) -> Front:
    """Run the NAT2 search in the run directory ``out``, or go on with it; returns the front.

    The front's networks are compiled and measured on this machine when it is the table's, so that
    predicted and measured latencies stand side by side; a network that measures over a latency budget is
    not feasible. After Ctrl-C the front so far is written and the interruption passed on.

    Raises:
        UserError: an input that cannot be used, or a budget that no architecture keeps.
    """
    inputs = _read(config)
    inputs.objectives.check_reachable()
    run = RunDirectory(out)
    run.begin(config)
    with run.locked():
        weights = SearchWeights(
            out, find_supernet(config.supernet), inputs.space, inputs.data, config.settings
        )
        loop = Nat2Search(
            inputs.objectives, weights, inputs.data, config.settings, out, lambda s: _tell(report, s, inputs)
        )
        try:
            loop.run()
        except KeyboardInterrupt:
            save_front(_front(config, inputs, loop, measured={}, complete=False), run.front_path)
            raise
        return _finish(config, inputs, loop, run, weights, report)


def _read(config: SearchConfig) -> _Inputs:
    """Read and check every input before anything is written."""
    budgets = parse_budgets(list(config.budgets))
    check_installed(config.settings.surrogates)
    check_searcher(config.settings.searcher)
    info, space = supernet_and_space(config.supernet, config.space)
    table = None
    if config.table is not None:
        table = load_table(Path(config.table))
        table.check_space(space)
        if table.certificate is None and not config.allow_uncertified:
            raise UserError(
                f"table {config.table} has no certificate; profile again on a quiet machine, "
                "or say --allow-uncertified"
            )
    data = load_data(config.data, base_resolution=max(space.resolutions))
    objectives = Objectives(
        CostModel(space, data.classes, table),
        IntegerEncoding(space),
        budgets,
        config.settings.objectives,
        config.settings.accuracy_only,
    )
    return _Inputs(info, space, table, budgets, data, objectives)


def supernet_and_space(spec: str, chosen: SearchedSpace) -> tuple[SuperNetworkInfo, SearchSpace]:
    """Return a super-network's description, and the part of its space that is searched.

    Raises:
        UserError: no such super-network, one of another space, or a resolution that its space has not.
    """
    info = supernet_info(find_supernet(spec))
    if chosen.name is not None and load_space(chosen.name).fingerprint != info.space.fingerprint:
        raise UserError(
            f"super-network {spec} is of space '{info.space.name}', not '{chosen.name}'; "
            "give the space that it was trained on"
        )
    return info, info.space.restrict(resolutions=chosen.resolutions, widths=(info.width,))


def _tell(report: Report, status: Status, inputs: _Inputs) -> None:
    words = []
    if status.best is not None:
        metric = inputs.objectives.axes[0]
        cost = format_cost(metric, status.best.values[metric])
        words.append(f"best {100 * status.best.values['top1']:.2f} % at {cost}")
    if status.hypervolume is not None:
        words.append(f"hypervolume {status.hypervolume:.4f}")
    if status.tau is not None:
        words.append(f"tau {status.tau:.2f} ({status.surrogate})")
    report(
        f"round {status.round}/{status.rounds} {status.stage}", status.done, status.total, " · ".join(words)
    )


def _finish(
    config: SearchConfig,
    inputs: _Inputs,
    loop: Nat2Search,
    run: RunDirectory,
    weights: SearchWeights,
    report: Report,
) -> Front:
    networks = loop.front()
    measured: dict[str, Measured] = {}
    note = ""
    if not networks:
        note = _nearest(loop, inputs)
    elif inputs.table is None:
        note = "no latency table was given, so nothing was measured"
    elif not config.measure:
        note = "measuring was switched off"
    elif not inputs.table.fingerprint.same_machine(fingerprint()):
        note = "this machine is not the table's, so nothing was measured here"
    else:
        measured = _measure(networks, inputs.table, weights, config.settings.seed, report)
    front = _front(config, inputs, loop, measured, complete=True, note=note)
    save_front(front, run.front_path)
    return front


def _measure(
    networks: list[Evaluation], table: LatencyTable, weights: SearchWeights, seed: int, report: Report
) -> dict[str, Measured]:
    """Compile the front's networks and measure them interleaved on the table's target."""
    target = table.target
    with pinned_threads(target):
        engines = {}
        for index, evaluation in enumerate(networks):
            architecture = evaluation.architecture
            shape = (target.batch, 3, architecture.resolution, architecture.resolution)
            engines[architecture.id] = compile_model(
                weights.supernet.extract(architecture),
                target,
                shape,
                calibration=random_calibration(target, shape, seed),
            )
            report("compile the front", index + 1, len(networks))
        measurement = measure_engines(
            engines,
            seed=seed,
            precision=0.005,
            time_limit_s=max(10.0, 1.0 * len(engines)),
            progress=lambda share, text: report("measure the front", share, 1.0, text),
        )
    return {
        identity: Measured(
            median_ms=summary.median_ms,
            p95_ms=summary.p95_ms,
            p99_ms=summary.p99_ms,
            ci_low_ms=summary.ci_low_ms,
            ci_high_ms=summary.ci_high_ms,
            samples=summary.samples,
        )
        for identity, summary in measurement.summaries.items()
    }


def _front(
    config: SearchConfig,
    inputs: _Inputs,
    loop: Nat2Search,
    measured: dict[str, Measured],
    *,
    complete: bool,
    note: str = "",
) -> Front:
    rows = []
    evaluations = loop.front()
    knees = high_tradeoff(
        objective_matrix(evaluations, inputs.objectives), config.settings.tradeoff_points
    ).tolist()
    for index, evaluation in enumerate(evaluations):
        identity = evaluation.architecture.id
        values = dict(evaluation.values)
        seen = measured.get(identity)
        if seen is not None:
            values |= {
                "latency_ms": seen.median_ms,
                "latency_p95_ms": seen.p95_ms,
                "latency_p99_ms": seen.p99_ms,
            }
        rows.append(
            FrontNetwork(
                id=identity,
                architecture=evaluation.architecture.to_json(),
                top1=evaluation.values["top1"],
                costs={key: value for key, value in evaluation.values.items() if key != "top1"},
                measured=seen,
                feasible=feasible(inputs.budgets, values),
                high_tradeoff=index in knees,
            )
        )
    hypervolumes = [entry["hypervolume"] for entry in loop.history if "hypervolume" in entry]
    return Front(
        space=inputs.space.name,
        data=config.data,
        budgets=config.budgets,
        objectives=("top1", *inputs.objectives.metrics),
        rounds=max((int(e["round"]) for e in loop.history if "hypervolume" in e), default=0),
        evaluations=len(loop.file.evaluations),
        complete=complete,
        hypervolume=hypervolumes[-1] if hypervolumes else None,
        note=note,
        networks=tuple(rows),
    )


def _nearest(loop: Nat2Search, inputs: _Inputs) -> str:
    """Say which budgets the least violating network breaks, and what it costs."""
    judged = loop.rounds.seen(loop.weights.version)
    nearest = min(
        judged, key=lambda e: sum(max(0.0, b.violation(e.values[b.metric])) for b in inputs.budgets)
    )
    broken = [b for b in inputs.budgets if not b.kept_by(nearest.values[b.metric])]
    words = ", ".join(
        f"'{b.text}' (it has {format_cost(b.metric, nearest.values[b.metric])})" for b in broken
    )
    return f"no network keeps all budgets; the nearest one, {nearest.architecture.id}, breaks {words}"
