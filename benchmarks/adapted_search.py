"""Whole searches, adaptation included, at equal time: ours, NAT2 and NAT.

    python benchmarks/adapted_search.py --out adapted --minutes 20 --seeds 3

Each run is `nat2deploy search` on the shipped super-network and its data, on one thread, stopped by Ctrl-C
when its time is over; the front that it leaves is judged on test images with the run's own weights. The time
is the processor's, where the system tells it: that is wall time where nothing else runs, and is as much work
for each method where something does. The
presets keep their policies; the authors' sizes, made for days on GPUs, are cut by one factor (--share) alike
in archive, candidates and what adaptation is fitted to, ours are the defaults, and adaptation has the same
epochs and images a step in all. Printed are the hypervolume of (test error, predicted latency), between the
best of all runs and the budget, the best test accuracy within the budget, and how far each run came. A
finished run is kept: start again to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymoo.indicators.hv import HV
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nat2deploy.data.load import load_data
from nat2deploy.files import read_json, write_json, write_text
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import load_front
from nat2deploy.search.presets import PRESETS
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge

HERE = Path(__file__).parent
METHODS = ("ours", "nat2", "nat")
_SIZES = ("archive_size", "candidates", "top")
_LEAST = {"archive_size": 8, "candidates": 2, "top": 8}
_GRACE_S = 1800.0  # for the front to be written after Ctrl-C: long where other work takes the processor


@dataclass(frozen=True)
class Job:
    """One search: a preset with a seed, in a folder."""

    method: str
    seed: int
    folder: Path

    @property
    def done(self) -> Path:
        return self.folder / "done.json"


def settings_of(method: str, share: float, common: dict[str, Any]) -> dict[str, Any]:
    """A preset's settings, the authors' sizes cut to a ``share``, and what is the same for all."""
    defaults = SearchSettings(preset=method)
    cut = () if method == "ours" else _SIZES
    sizes = {name: max(_LEAST[name], round(share * getattr(defaults, name))) for name in cut}
    # The authors' continuous fits alone take minutes a round; what they are fitted to stays.
    return {"preset": method, **sizes, "distribution": "categorical", **common}


def run(job: Job, given: argparse.Namespace) -> None:
    """Search until the time is over; what was there of an unfinished run is thrown away by the caller."""
    common = {
        "rounds": given.rounds,
        "warmup_epochs": given.warmup_epochs,
        "adapt_epochs": given.adapt_epochs,
        "adapt_subnets": 2,
        "batch_size": 128,
        "recalibration_images": given.recalibration_images,
        "validation_images": given.validation_images,
    }
    chosen = settings_of(job.method, given.share, common)
    if "preprocessing_factor" in PRESETS[job.method]:
        chosen["preprocessing_factor"] = min(
            given.preprocessing, SearchSettings(preset=job.method).preprocessing_factor
        )
    path = job.folder.with_suffix(".toml")
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{name} = {json.dumps(value)}\n" for name, value in chosen.items()))
    command = [sys.executable, "-m", "nat2deploy", "search", "--supernet", given.supernet]
    command += ["--data", given.data, "--table", str(given.table), "--budget", given.budget]
    command += ["--settings", str(path), "--seed", str(job.seed), "--out", str(job.folder)]
    command += ["--no-measure", "--allow-uncertified"]
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with path.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None and (spent := spent_s(process.pid, began)) < given.minutes * 60:
            time.sleep(min(0.5, given.minutes * 60 - spent))
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=_GRACE_S)
    front = job.folder / "front.json"
    if not front.exists() or not load_front(front).networks:
        raise SystemExit(
            f"{job.folder} has no front yet; give more --minutes, or see {path.with_suffix('.log')}"
        )
    write_json(job.done, {"seconds": time.monotonic() - began, "minutes": given.minutes, **_score(job)})


def spent_s(pid: int, began: float) -> float:
    """Seconds that a process has computed; where the system does not tell, those since ``began``."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic() - began
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _score(job: Job) -> dict[str, Any]:
    """What a run's front is worth on test images, and how far the run came."""
    run_ = RunDirectory(job.folder)
    config = run_.read_config(SearchConfig)
    front = load_front(run_.front_path)
    supernet, info = load_supernet(run_.supernet_path)
    data = load_data(config.data, base_resolution=max(info.space.resolutions))
    settings = config.settings
    evaluator = SubNetworkEvaluator(
        data, seed=settings.seed, recalibration_images=settings.recalibration_images
    )
    networks = []
    for found in front.networks:
        architecture = parse_architecture(info.space, found.architecture)
        network = evaluator.network(supernet, architecture)
        test = judge(network, data, data.test, architecture.resolution).top1
        networks.append({"latency_ms": found.costs["latency_ms"], "validation": found.top1, "test": test})
    return {
        "networks": networks,
        "evaluations": front.evaluations,
        "rounds": front.rounds,
        "version": info.version,
    }


def figures_of(runs: dict[str, list[dict[str, Any]]], limit_ms: float) -> dict[str, Any]:
    """Figures by method, from the scores of its runs; hypervolume is a share of the box of all fronts."""
    points = {
        method: [np.array([[1 - n["test"], n["latency_ms"]] for n in one["networks"]]) for one in scores]
        for method, scores in runs.items()
    }
    everything = np.concatenate([front for fronts in points.values() for front in fronts])
    ideal, nadir = everything.min(axis=0), np.array([everything[:, 0].max(), limit_ms])
    found = {}
    for method, fronts in points.items():
        volumes = [float(HV(ref_point=np.ones(2))((front - ideal) / (nadir - ideal))) for front in fronts]
        found[method] = {
            "hypervolume": volumes,
            "best_test": [float(1 - front[:, 0].min()) for front in fronts],
            "evaluations": [one["evaluations"] for one in runs[method]],
            "adaptations": [one["version"] for one in runs[method]],
            "seconds": [one["seconds"] for one in runs[method]],
        }
    return found


def main() -> None:
    # A shell's background job ignores Ctrl-C, and so would the searches that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and figures")
    parser.add_argument("--supernet", default="nano-ee-d-fashion-mnist")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument(
        "--table", type=Path, default=HERE.parent / "latency_tables/nano-ee-d-28-32px-x86-1-thread.json"
    )
    parser.add_argument("--budget", default="latency<=0.25ms")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=20.0, help="of processor time, for each run")
    parser.add_argument("--rounds", type=int, default=1000, help="at most; the time ends a run before")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.4, help="of the authors' sizes")
    parser.add_argument("--preprocessing", type=int, default=3, help="draws times the archive; NAT2 has 10")
    parser.add_argument("--adapt-epochs", type=float, default=0.5, help="a round; the authors have 5")
    parser.add_argument("--warmup-epochs", type=float, default=3.0, help="on other data than the weights'")
    parser.add_argument("--recalibration-images", type=int, default=1000)
    parser.add_argument("--validation-images", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    jobs = [
        Job(method, seed, arguments.out / f"{method}-{seed}")
        for seed in range(arguments.seeds)
        for method in arguments.methods
    ]
    _run_all([job for job in jobs if not job.done.exists()], arguments)
    runs = {m: [read_json(j.done, "run") for j in jobs if j.method == m] for m in arguments.methods}
    metric, _, limit = arguments.budget.partition("<=")
    if metric.strip() != "latency" or not limit.endswith("ms"):
        raise SystemExit("--budget: give a latency in ms, such as latency<=0.25ms")
    figures = figures_of(runs, float(limit.removesuffix("ms")))
    write_json(arguments.out / "figures.json", {"budget": arguments.budget, "methods": figures})
    if arguments.json:
        print(json.dumps(figures))
        return
    _print(figures, arguments.minutes)


def _run_all(jobs: Sequence[Job], arguments: argparse.Namespace) -> None:
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task("searches", total=len(jobs))
        for job in jobs:
            if job.folder.exists():  # a search that was cut off had less than its time, or more
                job.folder.rename(job.folder.with_name(f"{job.folder.name}.cut-off-{time.time_ns()}"))
            run(job, arguments)
            bars.advance(task)


def _print(figures: dict[str, Any], minutes: float) -> None:
    table = Table(
        *("method", "hypervolume", "by seed", "best test top-1", "by seed", "evaluations", "adaptations"),
        title=f"{minutes:g} minutes of one thread each",
    )
    for method, row in sorted(figures.items(), key=lambda item: -np.mean(item[1]["hypervolume"])):
        table.add_row(
            method,
            f"{np.mean(row['hypervolume']):.4f}",
            ", ".join(f"{v:.4f}" for v in row["hypervolume"]),
            f"{np.mean(row['best_test']):.2%}",
            ", ".join(f"{v:.2%}" for v in row["best_test"]),
            f"{np.mean(row['evaluations']):.0f}",
            f"{np.mean(row['adaptations']):.0f}",
        )
    Console(width=None if Console().is_terminal else 150).print(table)


if __name__ == "__main__":
    main()
