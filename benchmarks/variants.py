"""What each part of OFAv2 is worth: the eight variants of a space, trained alike, and their fronts.

    python benchmarks/variants.py --space nano --resolutions 28 --data fashion-mnist --epochs 3 --out variants

Every variant gets the same epochs of progressive shrinking with the same settings; then its smallest, its
largest and --networks random sub-networks are judged on validation images with inherited weights. What is
in the folder --out already is not done again, so that several calls may share the variants.
"""

from __future__ import annotations

import argparse
import math
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nat2deploy.data.load import load_data
from nat2deploy.files import read_json, write_json
from nat2deploy.run.config import SpaceConfig, TrainConfig
from nat2deploy.run.train import train
from nat2deploy.search.hypervolume import HypervolumeMeter
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower, total_macs, total_params
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator

VARIANTS = [f"{exits}-{body}" for exits in ("se", "ee") for body in ("b", "d", "p", "dp")]
# Best sub-network of OFAv2's at w1.0 on Tiny ImageNet, extracted teacher; read off the authors' figures.
AUTHORS_TOP1 = {
    "se-b": 42.1,
    "se-d": 42.9,
    "se-p": 36.0,
    "ee-b": 51.5,
    "ee-d": 51.8,
    "ee-p": 45.9,
    "ee-dp": 46.1,
}
LIMITS_MACS = (2e6, 4e6, 8e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="nano", help="the preset without its variant")
    parser.add_argument("--resolutions", default="28")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--epochs", type=float, default=3.0, help="of each variant, in all phases together")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--networks", type=int, default=50, help="random sub-networks of each variant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the super-networks and figures")
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    with Progress() as bars:
        found = {name: _variant(name, arguments, bars) for name in arguments.variants.split(",")}
    least = min(n["macs"] for entry in found.values() for n in entry["networks"])
    points = {name: _points(entry["networks"], least) for name, entry in found.items()}
    meter = HypervolumeMeter(np.concatenate(list(points.values())))
    table = Table("variant", "minutes", "mean", "best", title=f"validation top-1 on {arguments.data}")
    for limit in LIMITS_MACS:
        table.add_column(f"to {limit / 1e6:g}M MACs")
    table.add_column("hypervolume")
    table.add_column("authors'")
    rows = []
    for name, entry in found.items():
        row = _row(name, entry, meter(points[name]))
        rows.append(row)
        author = AUTHORS_TOP1.get(name)
        table.add_row(
            name,
            f"{entry['seconds'] / 60:.1f}",
            f"{row['random_mean']:.2%}",
            f"{row['best']:.2%}",
            *("none" if top1 is None else f"{top1:.2%}" for top1 in row["best_within_macs"]),
            f"{row['hypervolume']:.4f}",
            "not given" if author is None else f"{author:.1f} %",
        )
    console = Console(width=100)
    console.print(table)
    console.print(
        "mean: of the random sub-networks; authors': OFAv2's best sub-network on Tiny ImageNet at w1.0, "
        "read off their figures"
    )
    write_json(arguments.out / "variants.json", {"epochs": arguments.epochs, "rows": rows, "networks": found})


def _points(networks, least_macs):
    """Objectives [N, 2]: error, and the logarithm of how many times the least MACs."""
    return np.array([[1 - n["top1"], math.log(n["macs"] / least_macs)] for n in networks])


def _row(name, entry, hypervolume) -> dict:
    networks = entry["networks"]
    within = [[n["top1"] for n in networks if n["macs"] <= limit] for limit in LIMITS_MACS]
    return {
        "variant": name,
        "seconds": entry["seconds"],
        "random_mean": float(np.mean([n["top1"] for n in networks if n["role"] == "random"])),
        "best": max(n["top1"] for n in networks),
        "limits_macs": LIMITS_MACS,
        "best_within_macs": [max(top1, default=None) for top1 in within],
        "hypervolume": hypervolume,
        "authors_top1": AUTHORS_TOP1.get(name),
    }


def _variant(name, arguments, bars) -> dict:
    """Train a variant, judge its sub-networks, and keep both on disk."""
    recipe = {key: value for key, value in vars(arguments).items() if key not in ("variants", "out")}
    path = arguments.out / f"{name}.json"
    if path.exists() and (held := read_json(path, "figures"))["recipe"] == recipe:
        return held
    weights = arguments.out / f"{name}.safetensors"
    task = bars.add_task(name, total=1.0)
    config = SpaceConfig(
        name=f"{arguments.space}-{name}", resolutions=tuple(map(int, arguments.resolutions.split(",")))
    )
    with _stopwatch(weights.with_suffix(".seconds.json")) as clock:
        train(
            config,
            arguments.data,
            TrainConfig(
                epochs=arguments.epochs,
                learning_rate=arguments.learning_rate,
                batch_size=arguments.batch_size,
                teacher="extracted",
                clip=5.0,
            ),
            weights,
            seed=arguments.seed,
            report=lambda stage, done, total, _: bars.update(
                task, description=f"{name} {stage}", completed=done, total=total
            ),
        )
    seconds = read_json(clock, "seconds")
    supernet, _ = load_supernet(weights)
    space = supernet.space
    data = load_data(arguments.data, base_resolution=max(space.resolutions))
    rng = np.random.default_rng([arguments.seed, 31])
    drawn = random_architectures(IntegerEncoding(space), rng, arguments.networks)
    chosen = [("smallest", space.smallest()), ("largest", space.largest()), *(("random", a) for a in drawn)]
    evaluator = SubNetworkEvaluator(data, seed=arguments.seed, recalibration_images=1000)
    networks = []
    for index, (role, architecture) in enumerate(chosen):
        bars.update(task, description=f"{name} judge", completed=index, total=len(chosen))
        signatures = lower(space, architecture, data.classes)
        networks.append(
            {
                "role": role,
                "id": architecture.id,
                "top1": evaluator(supernet, architecture).top1,
                "macs": total_macs(signatures),
                "params": total_params(signatures),
            }
        )
    entry = {"recipe": recipe, "seconds": seconds, "networks": networks}
    write_json(path, entry)
    return entry


@contextmanager
def _stopwatch(path):
    """Add the seconds inside to those of calls that were stopped."""
    began = time.monotonic()
    before = read_json(path, "seconds") if path.exists() else 0.0
    try:
        yield path
    finally:
        write_json(path, before + time.monotonic() - began)


if __name__ == "__main__":
    main()
