"""Figures, tables and the picture of ``benchmarks/search.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pymoo.indicators.hv import HV
from rich.console import Console
from rich.table import Table
from scipy.stats import mannwhitneyu

from nat2deploy.search.costs import Objectives
from nat2deploy.search.survival import non_dominated
from nat2deploy.search.tabular import TabularBenchmark

POINTS = 14  # of each curve
STEP = 5  # evaluations: how finely it is told after how many ours is where another method ends


def report(
    benchmark: TabularBenchmark,
    tasks: dict[str, Objectives],
    runs: list[dict[str, Any]],
    reference: str,
    picture: Path,
    console: Console,
) -> dict[str, Any]:
    """Print a table for each setting, draw the curves, and return all figures."""
    figures: dict[str, Any] = {
        "benchmark": benchmark.info.generation.model_dump(),
        "judged": len(benchmark),
        "held_out": {k: vars(v) for k, v in benchmark.info.model.held_out.items()},
        "settings": {},
    }
    for setting, objectives in tasks.items():
        here = [run for run in runs if run["setting"] == setting]
        figures["settings"][setting] = _setting(benchmark, objectives, here, reference)
        _print(console, setting, figures["settings"][setting], reference)
    _overall(console, figures["settings"], reference)
    _draw(figures["settings"], picture)
    return figures


def _setting(
    benchmark: TabularBenchmark, objectives: Objectives, runs: list[dict[str, Any]], reference: str
) -> dict[str, Any]:
    judged = [
        {**_judged(benchmark, objectives, np.array(run["genes"])), "passes": np.array(run["passes"])}
        for run in runs
    ]
    table = _judged(benchmark, objectives, benchmark.genes)
    everything = np.concatenate([part["objectives"][part["inside"]] for part in (*judged, table)])
    ideal = everything.min(axis=0)
    # The worst corner: the cheapest network's error, and the budgets (or the dearest that is inside).
    limits = {budget.metric: budget.limit for budget in objectives.cost_budgets}
    dearest = everything.max(axis=0)
    nadir = np.array([dearest[0], *(limits.get(m, dearest[i + 1]) for i, m in enumerate(objectives.metrics))])
    front = (everything[non_dominated(everything)] - ideal) / (nadir - ideal)
    known = float(HV(ref_point=np.ones(len(ideal)))(front))
    at = np.unique(np.linspace(0, max(run["passes"][-1] for run in runs), POINTS + 1).astype(int)[1:])
    found: dict[str, Any] = {"known_best": 1.0 - float(ideal[0]), "at": at.tolist(), "methods": {}}
    for method in dict.fromkeys(run["method"] for run in runs):
        mine = [(r, j) for r, j in zip(runs, judged, strict=True) if r["method"] == method]
        curves = np.array([_curves(j, at, ideal, nadir, known) for _, j in mine])
        finals = [_final(j) for _, j in mine]
        found["methods"][method] = {
            "runs": len(mine),
            "hypervolume": _summary(curves[:, 0]),
            "best_top1": _summary(curves[:, 1]),
            "test_top1": float(np.mean([f["test"] for f in finals])),
            "processor_s": float(np.mean([r["processor_s"] for r, _ in mine])),
            "evaluated_for_real": float(np.mean([j["real"].mean() for _, j in mine])),
            "final": {"hypervolume": curves[:, 0, -1].tolist(), "best_top1": curves[:, 1, -1].tolist()},
        }
    ours = found["methods"].get(reference)
    fine = np.arange(STEP, at[-1] + 1, STEP)
    own = [j for r, j in zip(runs, judged, strict=True) if r["method"] == reference]
    volumes = np.array([_curves(j, fine, ideal, nadir, known)[0] for j in own]).mean(axis=0) if own else []
    for method, row in found["methods"].items():
        if ours is not None:
            row["reference_reaches_it_at"] = _first_at(fine, volumes, row["hypervolume"]["mean"][-1])
        if ours is not None and method != reference and min(row["runs"], ours["runs"]) > 1:
            row["p"] = {
                figure: float(mannwhitneyu(row["final"][figure], ours["final"][figure]).pvalue)
                for figure in ("hypervolume", "best_top1")
            }
    return found


def _first_at(at: Any, volumes: Any, volume: float) -> int | None:
    """After how many evaluations a method's mean hypervolumes are at ``volume``; None: never."""
    reached = np.flatnonzero(np.array(volumes) >= volume)
    return int(at[reached[0]]) if len(reached) else None


def _judged(benchmark: TabularBenchmark, objectives: Objectives, genes: Any) -> dict[str, Any]:
    """What a run's architectures [N, G] are worth, in order."""
    accuracies, costs = benchmark.accuracies(genes), objectives.costs(genes)
    return {
        "objectives": objectives.matrix(1.0 - accuracies[:, 0], costs),
        "test": accuracies[:, 1],
        "inside": (objectives.cost_violations(costs) <= 0).all(axis=1),
        "real": benchmark.evaluated(genes),
    }


def _curves(judged: dict[str, Any], at: Any, ideal: Any, nadir: Any, known: float) -> tuple[list, list]:
    """Hypervolume, as a share of the known front's, and best accuracy after so many evaluations."""
    scaled = (judged["objectives"] - ideal) / (nadir - ideal)
    volumes, best = [], []
    for count in at:
        inside = judged["inside"] & (judged["passes"] <= count)
        volumes.append(float(HV(ref_point=np.ones(scaled.shape[1]))(scaled[inside])) / known)
        best.append(1.0 - float(judged["objectives"][inside, 0].min()))
    return volumes, best


def _final(judged: dict[str, Any]) -> dict[str, float]:
    inside = np.flatnonzero(judged["inside"])
    return {"test": float(judged["test"][inside[judged["objectives"][inside, 0].argmin()]])}


def _summary(curves: Any) -> dict[str, list[float]]:
    """Mean of [runs, points] and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = curves[rng.integers(len(curves), size=(2000, len(curves)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return {"mean": curves.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


def _print(console: Console, setting: str, found: dict[str, Any], reference: str) -> None:
    at = found["at"]
    table = Table(
        *("method", "hypervolume", "95 %", "p", f"at {at[len(at) // 2 - 1]}", "best top-1", "95 %", "p"),
        *(f"{reference} there at", "test top-1", "runs", "s a run"),
        title=f"{setting}: {at[-1]} evaluations, best known {found['known_best']:.2%}",
    )
    rows = sorted(found["methods"].items(), key=lambda item: -item[1]["hypervolume"]["mean"][-1])
    for method, row in rows:
        volume, best, p = row["hypervolume"], row["best_top1"], row.get("p", {})
        table.add_row(
            method,
            f"{volume['mean'][-1]:.4f}",
            f"{volume['low'][-1]:.4f} to {volume['high'][-1]:.4f}",
            f"{p['hypervolume']:.3f}" if p else "",
            f"{volume['mean'][len(at) // 2 - 1]:.4f}",
            f"{best['mean'][-1]:.2%}",
            f"{best['low'][-1]:.2%} to {best['high'][-1]:.2%}",
            f"{p['best_top1']:.3f}" if p else "",
            str(row.get("reference_reaches_it_at") or "never"),
            f"{row['test_top1']:.2%}",
            str(row["runs"]),
            f"{row['processor_s']:.0f}",
            style="bold" if method == reference else None,
        )
    console.print(table)


def _overall(console: Console, settings: dict[str, Any], reference: str) -> None:
    """The mean over settings, and where a method is significantly above or below the reference."""
    methods = list(dict.fromkeys(m for found in settings.values() for m in found["methods"]))
    table = Table("method", "hypervolume", "best top-1", f"above {reference}", "below", title="all settings")
    rows = []
    for method in methods:
        here = [found["methods"][method] for found in settings.values() if method in found["methods"]]
        base = [found["methods"].get(reference) for found in settings.values() if method in found["methods"]]
        signs = [
            np.sign(row["hypervolume"]["mean"][-1] - other["hypervolume"]["mean"][-1])
            for row, other in zip(here, base, strict=True)
            if other is not None and row.get("p", {}).get("hypervolume", 1.0) < 0.05
        ]
        volume = float(np.mean([row["hypervolume"]["mean"][-1] for row in here]))
        best = float(np.mean([row["best_top1"]["mean"][-1] for row in here]))
        rows.append((volume, method, best, signs.count(1), signs.count(-1)))
    for volume, method, best, above, below in sorted(rows, reverse=True):
        table.add_row(method, f"{volume:.4f}", f"{best:.2%}", str(above), str(below))
    console.print(table)


def _draw(settings: dict[str, Any], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        2, len(settings), figsize=(3.6 * len(settings), 6.4), sharex=True, squeeze=False
    )
    for column, (setting, found) in enumerate(settings.items()):
        for row, (key, name) in enumerate((("hypervolume", "hypervolume"), ("best_top1", "best top-1"))):
            axis = axes[row, column]
            for number, (method, figures) in enumerate(found["methods"].items()):
                curve = figures[key]
                colour = f"C{number % 10}"
                axis.plot(found["at"], curve["mean"], label=method, color=colour, lw=2 if number == 0 else 1)
                axis.fill_between(found["at"], curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
            axis.set_title(setting if row == 0 else "")
            axis.set_ylabel(name if column == 0 else "")
            means = np.array([figures[key]["mean"] for figures in found["methods"].values()])
            axis.set_ylim(np.quantile(means, 0.15) - 1e-3, means.max() + 1e-3)
        axes[1, column].set_xlabel("evaluations")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
