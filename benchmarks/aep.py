"""AEP against plain fine-tuning at equal epochs, on random networks of a super-network with early exits.

    python benchmarks/aep.py nano-ee-d-fashion-mnist --data fashion-mnist --json aep.json

Each network starts with inherited weights and is tuned twice on the same images with the same settings: as it
is, and with all its earlier exits (AEP), which are then pruned on the validation split by two rules: the most
accurate state, and the one with the lowest predicted latency (without a table, the fewest MACs) within
--tolerance of it. Test accuracies come with 95 % intervals; at the end all networks are measured interleaved
on this machine, unless --no-measure. A killed benchmark goes on from its JSON file.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from nat2deploy.blocks import SubNetwork
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table
from nat2deploy.data.load import load_data
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.files import read_json, write_json
from nat2deploy.measure.networks import measure_engines
from nat2deploy.run.exit_costs import ExitCosts
from nat2deploy.run.exit_pruning import Pruning
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.target import Target
from nat2deploy.training.aep import exit_weights_by
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge
from nat2deploy.training.exits import keep_exits, network_with_exits, with_earlier_exits, with_exits
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.phases import Recipe, tune_exits

METHODS = ("inherited", "plain", "AEP, accuracy", "AEP, cost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", type=find_supernet, help="a file, or the name of a shipped one")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--networks", type=int, default=8, help="random ones of two stages or more")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--images", type=int, default=6000, help="of the training split; 0: all")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--exit-weights", default="unif", choices=["unif", "asc", "desc", "mix", "learned"])
    parser.add_argument("--tolerance", type=float, default=0.002)
    parser.add_argument("--table", help="a latency table, a file or a shipped one's name")
    parser.add_argument("--no-measure", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True, help="the figures, written after each network")
    arguments = parser.parse_args()

    settings = {
        key: str(value) for key, value in vars(arguments).items() if key not in ("json", "no_measure")
    }
    bench = _Bench(arguments)
    rows = _held(arguments.json, settings)
    for architecture in bench.architectures:
        if not any(row["network"] == architecture.id for row in rows):
            rows += bench.compare(architecture)
            write_json(arguments.json, {"settings": settings, "rows": rows})
            words = (f"{row['method']} {100 * row['top1']:.2f} %" for row in rows[-len(METHODS) :])
            print(f"{architecture.id}: {', '.join(words)}", flush=True)
    if not arguments.no_measure:
        bench.measure(rows)
    summary = summarise(rows)
    write_json(arguments.json, {"settings": settings, "rows": rows, "summary": summary})
    _print(rows, summary)


class _Bench:
    """The super-network and what it is compared on."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.supernet, self.info = load_supernet(arguments.supernet)
        self.space = self.supernet.space
        if self.space.exits == "final":
            raise UserError(f"super-network {arguments.supernet} has no early exits to take back; give one")
        data = load_data(arguments.data, base_resolution=max(self.space.resolutions))
        self.data = data
        if 0 < arguments.images < len(data.train):
            self.data = replace(data, train=data.train.subset(arguments.images, arguments.seed))
        self.evaluator = SubNetworkEvaluator(self.data, seed=arguments.seed)
        table = None if arguments.table is None else load_table(Path(arguments.table))
        self.target = Target() if table is None else table.target
        self.costs = CostModel(self.space, self.info.classes, table)
        self.tables = {} if table is None else {"": table}
        self.metric = "macs" if table is None else "latency_ms"
        rng = np.random.default_rng([arguments.seed, 31])
        drawn = random_architectures(IntegerEncoding(self.space), rng, 8 * arguments.networks)
        deep = [one for one in drawn if len(one.stages) > 1]
        self.architectures = deep[: arguments.networks]

    def compare(self, architecture):
        """One row a method."""
        given = self.evaluator.network(self.supernet, architecture)
        rows = [self._row(architecture, "inherited", architecture, given)]
        plain = self._tune(given, architecture, "unif")
        rows.append(self._row(architecture, "plain", architecture, plain.network))
        whole = with_earlier_exits(architecture)
        start = network_with_exits(self.supernet, architecture, self.arguments.seed)
        self.evaluator.recalibrate(start, architecture.resolution)
        tuned = self._tune(start, whole, self.arguments.exit_weights)
        costs = ExitCosts(self.space, self.info.classes, self.tables, whole, {})
        for method, by in (("AEP, accuracy", "accuracy"), ("AEP, cost", self.metric)):
            exits = Pruning(costs, (), (by,), self.arguments.tolerance).choose(tuned.judged)
            weights = tuned.network.exit_weights.tolist()
            kept = keep_exits(tuned.network, self.space, whole, exits, weights).eval()
            rows.append(self._row(architecture, method, with_exits(whole, exits), kept))
        return rows

    def measure(self, rows) -> None:
        """Measure each distinct architecture once; weights do not change its latency."""
        architectures = {}
        for row in rows:
            one = parse_architecture(self.space, row["architecture"])
            architectures[one.id] = one
        engines = {}
        for identity, one in architectures.items():
            shape = (self.target.batch, 3, one.resolution, one.resolution)
            module = SubNetwork(plan_network(self.space, one, self.info.classes)).eval()
            noise = random_calibration(self.target, shape, self.arguments.seed)
            engines[identity] = compile_model(module, self.target, shape, calibration=noise)
        measured = measure_engines(
            engines, seed=self.arguments.seed, precision=0.005, time_limit_s=max(20.0, 2.0 * len(engines))
        )
        for row in rows:
            identity = parse_architecture(self.space, row["architecture"]).id
            row["measured_ms"] = measured.summaries[identity].median_ms

    def _tune(self, network, architecture, weighting):
        epochs = self.arguments.epochs
        settings = LoopSettings(
            epochs=epochs,
            learning_rate=self.arguments.learning_rate,
            warmup_epochs=min(1.0, epochs / 10),
            weight_decay=5e-4,
            clip=5.0,
            seed=self.arguments.seed,
        )
        weights = exit_weights_by(weighting, len(architecture.exits))
        with tempfile.TemporaryDirectory() as folder:
            return tune_exits(
                network,
                self.space,
                architecture,
                self.data,
                Recipe(settings, weights, phases=1, validate_each_epoch=False),
                choose=lambda judged: judged.exits,
                recalibrate=self.evaluator.recalibrate,
                folder=Path(folder),
            )

    def _row(self, given, method, architecture, network):
        accuracy = judge(network, self.data, self.data.test, architecture.resolution)
        low, high = accuracy.interval
        costs = self.costs.values(architecture)
        return {
            "network": given.id,
            "method": method,
            "exits": list(architecture.exits),
            "architecture": architecture.to_json(),
            "top1": accuracy.top1,
            "low": low,
            "high": high,
            "macs": costs["macs"],
            "params": costs["params"],
            "predicted_ms": costs.get("latency_ms"),
        }


def summarise(rows) -> dict[str, dict[str, float]]:
    """Each method against plain fine-tuning: mean difference in points, wins, and mean cost ratios.

    ``interval`` is the half width of the mean difference's 95 % interval over networks (Student's t).
    """
    from scipy.stats import t

    by = {(row["network"], row["method"]): row for row in rows}
    networks = list(dict.fromkeys(row["network"] for row in rows))
    found = {}
    for method in METHODS:
        pairs = [(by[n, method], by[n, "plain"]) for n in networks]
        gains = np.array([100 * (one["top1"] - plain["top1"]) for one, plain in pairs])
        spread = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
        found[method] = {
            "points": float(gains.mean()),
            "interval": float(spread * t.ppf(0.975, max(1, len(gains) - 1))),
            "better": int((gains > 0).sum()),
            "networks": len(networks),
        }
        for cost in ("macs", "params", "predicted_ms", "measured_ms"):
            ratios = [one[cost] / plain[cost] for one, plain in pairs if one.get(cost) and plain.get(cost)]
            if ratios:
                found[method][cost] = float(np.exp(np.mean(np.log(ratios))))
    return found


def _held(path, settings):
    """The rows of an earlier call with the same settings."""
    if not path.exists():
        return []
    held = read_json(path, "benchmark")
    return held["rows"] if held["settings"] == settings else []


def _print(rows, summary) -> None:
    table = Table(
        "network", "method", "exits", "test top-1", "MACs", "params", "predicted", "measured", box=None
    )
    for row in rows:
        times = [row.get("predicted_ms"), row.get("measured_ms")]
        table.add_row(
            row["network"],
            row["method"],
            ",".join(map(str, row["exits"])),
            f"{100 * row['top1']:.2f} ({100 * row['low']:.2f}-{100 * row['high']:.2f})",
            f"{row['macs'] / 1e6:.2f}M",
            f"{row['params'] / 1e3:.0f}k",
            *("-" if ms is None else f"{ms:.3f} ms" for ms in times),
        )
    total = Table("against plain", "points", "better on", "MACs", "params", "predicted", "measured", box=None)
    for method, one in summary.items():
        ratios = [one.get(cost) for cost in ("macs", "params", "predicted_ms", "measured_ms")]
        total.add_row(
            method,
            f"{one['points']:+.2f} ± {one['interval']:.2f}",
            f"{one['better']} of {one['networks']}",
            *("-" if ratio is None else f"{ratio:.2f} times" for ratio in ratios),
        )
    console = Console(width=120)
    console.print(table)
    console.print(total)


if __name__ == "__main__":
    main()
