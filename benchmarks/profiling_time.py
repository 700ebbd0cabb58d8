"""How good does a latency table get with the time spent on measuring it?

    python benchmarks/profiling_time.py --space nano --limits 5,10,20,40,80,160 --out profiling-time

The space is profiled anew with each time limit, 24 calibration networks included. Then one set of random
networks, spread over the range of latencies, is measured, and every table predicts that same set. Writes the
figures as JSON and as a picture: errors against the wall time of a whole profile, compiling included.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nat2deploy.cost.certificate import FEWEST_NETWORKS
from nat2deploy.cost.fitting import predict_networks
from nat2deploy.files import write_json
from nat2deploy.measure.device import LocalDevice
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.measure.profiler import profile_space
from nat2deploy.measure.validation import validate_table
from nat2deploy.space.search_space import load_space
from nat2deploy.target import make_target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="nano")
    parser.add_argument("--resolutions", help="only these of the space, such as 28,32")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limits", default="5,10,20,40,80,160", help="seconds of measuring")
    parser.add_argument("--networks", type=int, default=50, help="that every table predicts")
    parser.add_argument("--networks-limit", type=float, default=60.0, help="seconds of measuring those")
    parser.add_argument("--every-size", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    arguments = parser.parse_args()

    space = load_space(arguments.space)
    if arguments.resolutions:
        space = space.restrict(resolutions=tuple(map(int, arguments.resolutions.split(","))))
    target = make_target("cpu", arguments.backend, arguments.precision, arguments.threads, 1)
    limits = [float(limit) for limit in arguments.limits.split(",")]
    plan = ProfilePlan(
        space,
        target,
        seed=arguments.seed,
        every_size=arguments.every_size,
        held_out_networks=FEWEST_NETWORKS,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with Progress() as bars:
        task = bars.add_task("profiles", total=len(limits))
        # The longest first: by its table the common networks are spread over the range of latencies.
        tables = []
        for limit in sorted(limits, reverse=True):
            begun = time.perf_counter()
            tables.append(profile_space(replace(plan, time_limit_s=limit), LocalDevice(target)))
            rows.append({"limit_s": limit, "wall_s": time.perf_counter() - begun})
            bars.advance(task)
        bars.update(task, description="networks", total=1.0, completed=0)
        _, networks = validate_table(
            tables[0],
            space,
            networks=arguments.networks,
            seed=arguments.seed + 1,
            time_limit_s=arguments.networks_limit,
            progress=lambda share, _: bars.update(task, completed=share),
        )
    measured = np.array([network.median_ms for network in networks])
    shown = Table("time limit", "wall time", "mean error", "within 5 %", "within 10 %", "worst")
    for row, table in zip(rows, tables, strict=True):
        errors = np.abs(predict_networks(table, space, networks) / measured - 1)
        row |= {
            "measuring_s": table.elapsed_s,
            "blocks": len(table.entries),
            "mape": float(errors.mean()),
            "within_5pct": float(np.mean(errors <= 0.05)),
            "within_10pct": float(np.mean(errors <= 0.10)),
            "max_error": float(errors.max()),
        }
        shown.add_row(
            f"{row['limit_s']:g} s",
            f"{row['wall_s']:.0f} s",
            f"{row['mape']:.2%}",
            f"{row['within_5pct']:.0%}",
            f"{row['within_10pct']:.0%}",
            f"{row['max_error']:.1%}",
        )
    console = Console(width=100)
    console.print(shown)
    console.print(
        f"{space.name} at {', '.join(map(str, space.resolutions))} px, {len(tables[0].entries)} blocks, "
        f"{target}; {len(networks)} networks of {measured.min():.3f} to {measured.max():.3f} ms"
    )
    name = f"{arguments.space}-{arguments.backend}-{arguments.precision}-{arguments.threads}"
    write_json(
        arguments.out / f"{name}.json",
        {
            "space": space.name,
            "resolutions": list(space.resolutions),
            "target": target.model_dump(mode="json"),
            "every_size": arguments.every_size,
            "networks": len(networks),
            "rows": rows,
        },
    )
    _draw(rows, f"{space.name}, {target}", arguments.out / f"{name}.png")


def _draw(rows: list[dict[str, float]], title: str, path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rows = sorted(rows, key=lambda row: row["wall_s"])
    wall_s = [row["wall_s"] for row in rows]
    axes.plot(wall_s, [100 * row["mape"] for row in rows], "o-", label="mean error")
    axes.plot(wall_s, [100 * row["max_error"] for row in rows], "x--", label="worst network")
    axes.axhline(5, color="lightgrey", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="wall time of the profile, s", ylabel="error, %", title=title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    axes.legend()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
