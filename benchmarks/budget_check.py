"""Do the networks that a search returned keep their latency budget when they are measured afterwards?

    python benchmarks/budget_check.py runs/quickstart/search --networks 10 --json budget.json

Takes the networks of a search's front that are predicted nearest to the budget, compiles and measures them
interleaved on this machine, and compares with the budget and with the error that the table's certificate
admits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nat2deploy.cost.table import load_table
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.files import write_json
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.networks import measure_engines
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import load_front
from nat2deploy.run.read_search import read_search
from nat2deploy.search.budget import parse_budgets
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.supernet.checkpoint import load_supernet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a folder of `nat2deploy search`")
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    run = RunDirectory(arguments.run)
    config = read_search(run)
    if config.table is None:
        raise SystemExit(f"{arguments.run} was searched without a latency table")
    table = load_table(Path(config.table))
    limits = [b for b in parse_budgets(list(config.budgets)) if b.metric == "latency_ms"]
    if not limits:
        raise SystemExit(f"{arguments.run} was searched without a latency budget")
    budget_ms = limits[0].limit
    networks = sorted(load_front(run.front_path).networks, key=lambda n: -n.costs["latency_ms"])
    chosen = networks[: arguments.networks]
    supernet, info = load_supernet(run.supernet_path)
    target = table.target
    engines = {}
    with pinned_threads(target):
        for network in chosen:
            architecture = parse_architecture(info.space, network.architecture)
            shape = (target.batch, 3, architecture.resolution, architecture.resolution)
            engines[network.id] = compile_model(
                supernet.extract(architecture),
                target,
                shape,
                calibration=random_calibration(target, shape, arguments.seed),
            )
        found = measure_engines(
            engines, seed=arguments.seed, precision=0.005, time_limit_s=arguments.time_limit
        )
    rows = []
    shown = Table("network", "predicted", "measured", "error", "of the budget")
    for network in chosen:
        predicted_ms, measured_ms = network.costs["latency_ms"], found.summaries[network.id].median_ms
        rows.append({"id": network.id, "predicted_ms": predicted_ms, "measured_ms": measured_ms})
        shown.add_row(
            network.id,
            f"{predicted_ms:.4f} ms",
            f"{measured_ms:.4f} ms",
            f"{predicted_ms / measured_ms - 1:+.2%}",
            f"{measured_ms / budget_ms:.1%}",
        )
    console = Console()
    console.print(shown)
    over = [row for row in rows if row["measured_ms"] > budget_ms]
    worst = max(row["measured_ms"] / budget_ms - 1 for row in rows)
    mape = None if table.certificate is None else table.certificate.mape
    beyond = None if mape is None else sum(row["measured_ms"] > budget_ms * (1 + mape) for row in rows)
    console.print(
        f"budget {budget_ms:g} ms, {len(rows)} networks, {len(over)} measured over it; the slowest is "
        f"{worst:+.2%} from it"
    )
    if mape is not None:
        console.print(f"certified mean error {mape:.2%}: {beyond} are over the budget by more than that")
    if arguments.json is not None:
        write_json(
            arguments.json,
            {"budget_ms": budget_ms, "certified_mape": mape, "beyond": beyond, "networks": rows},
        )


if __name__ == "__main__":
    main()
