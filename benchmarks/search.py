"""Searches compared on the tabular benchmark: ours, the authors' presets, and peers.

    python benchmarks/search.py --out searches --seeds 20 --processes 2
    python benchmarks/search.py --out searches --ablation ours --settings latency-0.2 latency-0.3

Each method gets the same number of evaluations of distinct architectures, under several budgets, and the
same exact costs. Ours also takes what a judged network passes at its early exits, for which none is judged
once more; ``ours-alone`` does not. Printed and drawn are, against the number of evaluations, the hypervolume
that the feasible front covers between the budget and the best that is known, and the accuracy of the best
network within the budget; means over seeds with 95 % bootstrap intervals, and a Mann-Whitney test against
ours.
Weights stay as they are, so nothing is adapted or judged again, and ours is the preset fixed. The presets
of NAT and NAT2 keep their policies, with first archives of 100 and no pre-processing, whose 3,000
evaluations would be all; all presets' surrogates have the same --folds. A run is a file: a command that was
killed goes on where it was. ``--stored benchmarks/tabular/searches.npz`` takes what our figures are made of
from there, and runs only what is left.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import search_methods as methods
from rich.console import Console
from rich.progress import Progress
from search_report import report
from search_runs import code_digest, merged, read_runs, write_runs

from nat2deploy.cost.table import load_table
from nat2deploy.errors import UserError
from nat2deploy.files import read_json, write_json
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.tabular import TabularBenchmark, load_tabular

HERE = Path(__file__).parent
EVALUATIONS = 350


@dataclass(frozen=True)
class Setting:
    """Budgets, and the costs that are objectives beside the error (those of the budgets unless given)."""

    budgets: tuple[str, ...]
    metrics: tuple[str, ...] = ()

    def objectives(self, benchmark: TabularBenchmark) -> Objectives:
        return Objectives(
            benchmark.costs, benchmark.encoding, parse_budgets(list(self.budgets)), self.metrics
        )


SETTINGS = {
    "latency-0.12": Setting(("latency<=0.12ms",)),
    "latency-0.2": Setting(("latency<=0.2ms",)),
    "latency-0.3": Setting(("latency<=0.3ms",)),
    "params-100k": Setting(("params<=100k",)),
    "p99-0.25": Setting(("latency.p99<=0.25ms",)),
    "latency-in-params": Setting(("latency<=0.25ms", "params<=150k"), ("latency_ms",)),
    "latency+params": Setting(("latency<=0.25ms", "params<=200k")),
}

FITTED = {"subset_population": 100, "subset_generations": 50}
METHODS: dict[str, dict[str, Any]] = {
    "ours": {"preset": "fixed"},
    "ours-alone": {"preset": "fixed", "passed_exits": False},
    "nat": {"preset": "nat", **FITTED},
    "nat2": {"preset": "nat2", "archive_size": 100, "preprocessing_factor": 1, **FITTED},
}
PEERS = {
    "random": methods.random_search,
    "regularised-evolution": methods.regularised_evolution,
    "nsga2": methods.nsga2,
    "optuna-nsga2": methods.optuna("nsga2"),
    "optuna-tpe": methods.optuna("tpe"),
    "linas": methods.linas,
}
# One policy at a time: ours replaced by NAT2's, or NAT2's by NAT's.
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "ours": {
        "first archive uniform": {"initialisation": "uniform-depth"},
        "first archive of 100": {"first_archive": None},
        "surrogate lightgbm": {"surrogates": ("lightgbm",), "surrogate_features": "integer"},
        "surrogate process": {"surrogates": ("gaussian-process",)},
        "surrogate trees": {"surrogates": ("extra-trees",)},
        "features one-hot": {"surrogate_features": "one-hot"},
        "without costs": {"surrogate_costs": False},
        "target error": {"surrogate_target": "error"},
        "learns archive": {"surrogate_learns": "archive"},
        "fold ensemble": {"surrogate_ensemble": True},
        "one batch": {"batch_candidates": None},
        "batches of 4": {"batch_candidates": 4},
        "sampling lhs": {"sampling": "lhs"},
        "subset greedy": {"subset": "greedy"},
        "subset gap-variance": {"subset": "gap-variance"},
        "update grow": {"update": "grow"},
        "each judged alone": {"passed_exits": False},
    },
    "nat2": {
        "uniform genes, push": {"initialisation": "uniform-genes", "repair": "push"},
        "grow": {"update": "grow"},
        "one-hot": {"surrogate_features": "one-hot"},
        "archive sampling": {"sampling": "archive"},
        "expected improvement": {"subset": "expected-improvement"},
        "no fold ensemble": {"surrogate_ensemble": False},
        "within budgets": {"initialisation": "within-budgets"},
    },
}


@dataclass(frozen=True)
class Job:
    """One run: a method (or a variant of a preset) on a setting with a seed."""

    setting: str
    method: str
    policies: tuple[tuple[str, Any], ...] | None
    seed: int
    path: Path


@lru_cache(maxsize=1)
def _benchmark(file: Path, table: Path) -> TabularBenchmark:
    return load_tabular(file, load_table(table))


def run(job: Job, file: Path, table: Path, evaluations: int) -> None:
    """Do one run and write its file: what was found, in order, by which evaluation, and how long it took."""
    code = code_digest()
    benchmark = _benchmark(file, table)
    task = methods.Task(benchmark, SETTINGS[job.setting].objectives(benchmark), evaluations)
    _ = benchmark.model  # fitted once a process, outside the time that is taken
    began = time.process_time()
    search = PEERS[job.method] if job.policies is None else methods.nat2deploy(**dict(job.policies))
    with contextlib.suppress(methods.Spent):
        search(task, job.seed)
    seconds = time.process_time() - began
    encoding = benchmark.encoding
    write_json(
        job.path,
        {
            "setting": job.setting,
            "method": job.method,
            "seed": job.seed,
            "recipe": recipe(job, file, table, evaluations),
            "code": code,
            "processor_s": round(seconds, 2),
            "genes": encoding.encode_all([e.architecture for e in task.trace]).tolist(),
            "passes": task.passes,
        },
    )


# Settings of training and judging: here weights stay as they are, and accuracies are known.
_NOT_USED = {
    *("warmup", "warmup_epochs", "warmup_full_epochs", "warmup_learning_rate", "warmup_subnets"),
    *("adapt_learning_rate", "adapt_weight_decay", "adapt_clip", "adapt_subnets", "batch_size"),
    *("exit_weights", "label_smoothing", "recalibration_images"),
}


def recipe(job: Job, file: Path, table: Path, evaluations: int) -> str:
    """A hash of all that a run depends on: a run of another benchmark, table or policy is done again.

    Policies are written out, so that a changed default counts.
    """
    settings = None
    if job.policies is not None:
        settings = SearchSettings(**dict(job.policies)).model_dump_json(exclude=_NOT_USED)
    parts = [_digest(file), _digest(table), evaluations, job.method, job.seed, repr(SETTINGS[job.setting])]
    return hashlib.sha256(repr([*parts, settings]).encode()).hexdigest()


def _is_done(job: Job, file: Path, table: Path, evaluations: int) -> bool:
    if not job.path.exists():
        return False
    run = read_json(job.path, "run")
    return "passes" in run and run.get("recipe") == recipe(job, file, table, evaluations)


@lru_cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, figures and picture")
    parser.add_argument("--benchmark", type=Path, default=HERE / "tabular/nano-ee-d-fashion-mnist.npz")
    parser.add_argument(
        "--table", type=Path, default=HERE.parent / "latency_tables/nano-ee-d-28-32px-x86-1-thread.json"
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *PEERS], default=[*METHODS, *PEERS])
    parser.add_argument("--reference", default="ours", help="the method that the others are held against")
    parser.add_argument("--ablation", choices=ABLATIONS, help="instead: each policy of a preset alone")
    parser.add_argument("--variants", nargs="+", help="of the ablation; all unless given")
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--folds", type=int, default=5, help="of all presets' surrogates")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--stored", type=Path, help="file of runs that are not to be made again")
    parser.add_argument("--store", type=Path, help="file to add all runs to")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()

    # What adaptation samples from is fitted each round, in minutes if as the authors do it: not used here.
    common = {"surrogate_folds": arguments.folds, "distribution": "categorical"}
    if arguments.ablation is None:
        compared = {m: {**METHODS[m], **common} if m in METHODS else None for m in arguments.methods}
        reference = arguments.reference
    else:
        base, reference = {**METHODS[arguments.ablation], **common}, arguments.ablation
        variants = ABLATIONS[arguments.ablation]
        chosen = arguments.variants or variants
        compared = {reference: base, **{f"{reference}: {v}": {**base, **variants[v]} for v in chosen}}
    jobs = [
        Job(
            setting,
            method,
            None if policies is None else tuple(policies.items()),
            seed,
            arguments.out / setting / method.replace(" ", "-").replace(":", "") / f"{seed}.json",
        )
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        for setting in arguments.settings
        for method, policies in compared.items()
    ]
    for policies in compared.values():
        if policies is not None:
            SearchSettings(**policies)  # refuses what does not agree before anything runs
    given = (arguments.benchmark, arguments.table, arguments.evaluations)
    code = code_digest()  # of what runs, whatever is edited meanwhile
    before = read_runs(arguments.store) if arguments.store is not None and arguments.store.exists() else []
    benchmark = _benchmark(arguments.benchmark, arguments.table)
    if before and len(before[0]["genes"][0]) != len(benchmark.encoding):
        raise UserError(f"{arguments.store} holds runs of another search space; give another --store")
    left = [job for job in jobs if not _is_done(job, *given)]
    if arguments.stored is not None:
        wanted, left = left, take(read_runs(arguments.stored), left, given)
        other = ": it holds others' --seeds, --evaluations, --folds, --benchmark or --table"
        said = other if wanted and left == wanted else ""
        _say(f"{len(wanted) - len(left)} of {len(wanted)} runs are in {arguments.stored}{said}")
    _run_all(left, arguments)
    runs = [{"code": "", **read_json(job.path, "run")} for job in jobs]
    if old := sum(run["code"] != code for run in runs):
        _say(
            f"{old} of {len(runs)} runs were made by other code of the searches; another --out makes all anew"
        )
    if arguments.store is not None:
        write_runs(arguments.store, merged(before, runs))
    tasks = {name: SETTINGS[name].objectives(benchmark) for name in arguments.settings}
    name = "figures" if arguments.ablation is None else f"ablation-{arguments.ablation}"
    figures = report(
        benchmark, tasks, runs, reference, arguments.out / f"{name}.png", _console(arguments.json)
    )
    write_json(arguments.out / f"{name}.json", figures)
    if arguments.json:
        print(json.dumps(figures))


def take(runs: list[dict[str, Any]], jobs: list[Job], given: tuple[Path, Path, int]) -> list[Job]:
    """Write those of the runs that are of jobs; returns the jobs that are left."""
    made = {run["recipe"]: run for run in runs}
    left = []
    for job in jobs:
        if (run := made.get(recipe(job, *given))) is None:
            left.append(job)
        else:
            write_json(job.path, run)
    return left


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _console(to_stderr: bool) -> Console:
    """Wide enough for the tables where nobody's window says how wide."""
    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=150)


def _run_all(jobs: list[Job], arguments: argparse.Namespace) -> None:
    given = (arguments.benchmark, arguments.table, arguments.evaluations)
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("runs", total=len(jobs))
        if arguments.processes == 1:
            for job in jobs:
                run(job, *given)
                bars.advance(task)
            return
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(arguments.processes) as pool:
            for future in as_completed([pool.submit(run, job, *given) for job in jobs]):
                future.result()
                bars.advance(task)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
