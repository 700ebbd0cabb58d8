"""The front door of the search: from files to a front with predicted and measured costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nat2deploy.data.names import shown_name
from nat2deploy.errors import UserError
from nat2deploy.progress import Report, silent
from nat2deploy.run.beginning import as_begun, check_data
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.cost_source import symmetric_int8
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import Front, FrontNetwork, save_front
from nat2deploy.run.measure_front import Found, is_finished, measure_front, measured_before, measured_values
from nat2deploy.run.search_inputs import SearchInputs, read_inputs
from nat2deploy.run.warm_start import check_start, open_earlier, warm_start
from nat2deploy.search.balance import candidates_of
from nat2deploy.search.budget import feasible, format_beside, format_cost
from nat2deploy.search.judges.base import Judge, evaluator_options
from nat2deploy.search.judges.opening import open_judge
from nat2deploy.search.nat2 import Nat2Search, Status
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.time_left import TimeLeft, in_words
from nat2deploy.search.tradeoff import high_tradeoff
from nat2deploy.search.update import objective_matrix
from nat2deploy.search.weights import SearchWeights
from nat2deploy.supernet.shipped import find_supernet


def search(config: SearchConfig, out: Path, report: Report = silent) -> Front:
    """Run the NAT2 search in the run directory ``out``, or go on with it; returns the front.

    The front's networks are compiled and measured on each target whose table is this machine's, so that
    predicted and measured latencies stand side by side; a network that measures over a latency budget is
    not feasible. What was measured of the same front before stays. After Ctrl-C the front so far is written,
    unless a finished one of the same networks is there, and the interruption passed on.

    Raises:
        UserError: an input that cannot be used, a budget that no architecture keeps, or a run that began with
            other images, classes or latencies.
    """
    run = RunDirectory(out)
    fresh = not run.config_path.exists()
    if fresh and config.start is not None:
        open_earlier(config.start)
    # What it has of its own is enough to go on: those that it began with may be gone.
    own = not fresh and run.supernet_path.exists()
    supernets = (str(run.supernet_path),) if own else config.supernets
    inputs = read_inputs(config, supernets)
    if not fresh:
        check_data(run, inputs.data)
    inputs.objectives.check_reachable()
    if fresh:
        check_start(config, inputs)
    run.begin(config)
    options = evaluator_options(config.settings, symmetric_int8(inputs.tables))
    with (
        run.locked(),
        _opened_judge(config, inputs, options, run, fresh=fresh) as judge,
        as_begun(run, inputs.data),
    ):
        weights = SearchWeights(
            out,
            [find_supernet(name) for name in supernets],
            inputs.space,
            inputs.data,
            config.settings,
            judge.adapter,
        )
        loop = Nat2Search(
            inputs.objectives,
            weights,
            inputs.data,
            config.settings,
            out,
            _Teller(report, inputs, config.settings),
            warm_start(config, inputs, out),
            judge,
        )
        try:
            loop.run()
        except KeyboardInterrupt:
            _save_so_far(config, inputs, loop, run)
            raise
        return _finish(config, inputs, loop, run, weights, report)


@contextmanager
def _opened_judge(
    config: SearchConfig, inputs: SearchInputs, options: Mapping[str, Any], run: RunDirectory, *, fresh: bool
) -> Iterator[Judge]:
    """The judge; where there is none, a run that is fresh has not begun, and may begin otherwise."""
    try:
        judge = open_judge(config.workers, inputs.data, options, run.path)
    except UserError:
        if fresh:
            run.config_path.unlink(missing_ok=True)
        raise
    with judge:
        yield judge


class _Teller:
    """Says where a search is, in words."""

    def __init__(self, report: Report, inputs: SearchInputs, settings: SearchSettings) -> None:
        self.report = report
        self.inputs = inputs
        self.time_left = TimeLeft(settings, candidates_of(settings, inputs.data))

    def __call__(self, status: Status) -> None:
        words = []
        left_s = self.time_left(status)
        if left_s:
            words.append(f"{in_words(left_s)} left")
        if status.best is not None:
            values = status.best.values
            costs = ", ".join(format_cost(metric, values[metric]) for metric in self.inputs.objectives.axes)
            words.append(f"best {status.best.architecture.id} {100 * values['top1']:.2f} % at {costs}")
        if status.hypervolume is not None:
            words.append(f"hypervolume {status.hypervolume:.4f}")
        if status.tau is not None:
            words.append(f"tau {status.tau:.2f} ({status.surrogate})")
        if status.evaluations:
            words.append(f"{status.evaluations} evaluations")
        where = f"round {status.round}/{status.rounds} {status.stage}"
        self.report(where, status.done, status.total, " · ".join(words))


def _save_so_far(config: SearchConfig, inputs: SearchInputs, loop: Nat2Search, run: RunDirectory) -> None:
    """Write the front of a search that was stopped, unless the file holds the same, finished."""
    names = [evaluation.architecture.id for evaluation in loop.front()]
    if not is_finished(run.front_path, names):
        front = _front(config, inputs, loop, measured={}, complete=False, note=loop.unsure)
        save_front(front, run.front_path)


def _finish(
    config: SearchConfig,
    inputs: SearchInputs,
    loop: Nat2Search,
    run: RunDirectory,
    weights: SearchWeights,
    report: Report,
) -> Front:
    networks = loop.front()
    measured: Found = {}

    def saved(note: str) -> Front:
        front = _front(config, inputs, loop, measured, complete=True, note=note)
        save_front(front, run.front_path)
        return front

    if not networks:
        return saved(_nearest(loop))
    if not inputs.tables:
        return saved("no latency table was given, so nothing was measured")
    names = [evaluation.architecture.id for evaluation in networks]
    measured = measured_before(run.front_path, names, inputs.tables)
    if len(measured) == len(inputs.tables):
        return saved("")
    if not config.measure:
        return saved("measuring was switched off")
    saved("it was not measured to the end; repeat the command for that")
    measured, note = measure_front(
        networks, inputs.tables, weights.supernet, config.settings.seed, report, measured
    )
    return saved(note)


def _front(
    config: SearchConfig,
    inputs: SearchInputs,
    loop: Nat2Search,
    measured: Found,
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
        seen = {name: found[identity] for name, found in measured.items()}
        for name, one in seen.items():
            values |= measured_values(name, one)
        rows.append(
            FrontNetwork(
                id=identity,
                architecture=evaluation.architecture.to_json(),
                top1=evaluation.values["top1"],
                costs={key: value for key, value in evaluation.values.items() if key != "top1"},
                measured=seen.get(""),
                measured_on={name: one for name, one in seen.items() if name},
                feasible=feasible(inputs.objectives.budgets, values),
                high_tradeoff=index in knees,
            )
        )
    hypervolumes = [entry["hypervolume"] for entry in loop.history if "hypervolume" in entry]
    return Front(
        space=inputs.space.name,
        data=shown_name(config.data),
        budgets=config.budgets,
        objectives=("top1", *inputs.objectives.metrics),
        rounds=max((int(e["round"]) for e in loop.history if "hypervolume" in e), default=0),
        evaluations=loop.file.judged,
        complete=complete,
        hypervolume=hypervolumes[-1] if hypervolumes else None,
        note=note,
        networks=tuple(rows),
    )


def _nearest(loop: Nat2Search) -> str:
    """Say which budgets the least violating network breaks, and what it costs."""
    budgets = loop.objectives.budgets
    judged = loop.rounds.seen(loop.weights.version)
    nearest = min(judged, key=lambda e: sum(max(0.0, b.violation(e.values[b.metric])) for b in budgets))
    broken = [b for b in budgets if not b.kept_by(nearest.values[b.metric])]
    words = ", ".join(f"'{b.text}' (it has {format_beside(b, nearest.values[b.metric])})" for b in broken)
    return f"no network keeps all budgets; the nearest one, {nearest.architecture.id}, breaks {words}"
