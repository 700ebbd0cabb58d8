"""A data set by transfer from a super-network of another one, and from scratch, at equal training time.

    python benchmarks/transfer.py nano-ee-d-fashion-mnist --data digits --json transfer.json

From scratch, the same space is trained by progressive shrinking for --epochs. The transferred super-network
gets a new classifier and is trained by uniform sampling, as a search warms up, for as many seconds. Then both
are judged on the same random sub-networks, with inherited weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nat2deploy.data.load import load_data
from nat2deploy.files import write_json
from nat2deploy.run.config import SpaceConfig, TrainConfig
from nat2deploy.run.train import train
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.schedule import Choices
from nat2deploy.training.supernet import adapt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", type=find_supernet, help="a file, or the name of a shipped one")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=float, default=30.0, help="of training from scratch")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--networks", type=int, default=30, help="random sub-networks that are judged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    source, info = load_supernet(arguments.supernet)
    space, seed = source.space, arguments.seed
    data = load_data(arguments.data, base_resolution=max(space.resolutions))
    with tempfile.TemporaryDirectory() as folder, Progress() as bars:
        task = bars.add_task("from scratch", total=1.0)
        out = Path(folder) / "scratch.safetensors"
        began = time.monotonic()
        train(
            SpaceConfig(name=info.space.name, resolutions=space.resolutions),
            arguments.data,
            TrainConfig(
                epochs=arguments.epochs,
                learning_rate=arguments.learning_rate,
                batch_size=arguments.batch_size,
            ),
            out,
            seed=seed,
            report=lambda stage, done, total, _: bars.update(
                task, description=stage, completed=done, total=total
            ),
        )
        seconds = time.monotonic() - began
        scratch, _ = load_supernet(out)
        task = bars.add_task("transfer", total=seconds)
        transferred, epochs = _transfer(arguments, data, seconds, lambda t: bars.update(task, completed=t))

    evaluator = SubNetworkEvaluator(data, seed=seed)
    drawn = random_architectures(IntegerEncoding(space), np.random.default_rng(seed), arguments.networks)
    chosen = {"smallest": [space.smallest()], "largest": [space.largest()], "random, mean": drawn}
    rows = []
    for kind, architectures in chosen.items():
        row = {"networks": kind}
        for way, supernet in (("scratch", scratch), ("transfer", transferred)):
            row[way] = float(np.mean([evaluator(supernet, a).top1 for a in architectures]))
        rows.append(row)
    table = Table(
        "sub-networks", "from scratch", "by transfer", title=f"validation top-1 on {arguments.data}"
    )
    for row in rows:
        table.add_row(row["networks"], f"{row['scratch']:.2%}", f"{row['transfer']:.2%}")
    Console().print(table)
    Console().print(
        f"{seconds:.0f} s each; {arguments.epochs:g} epochs from scratch, {epochs:.1f} by transfer"
    )
    if arguments.json is not None:
        write_json(arguments.json, {"seconds": seconds, "transfer_epochs": epochs, "rows": rows})


def _transfer(arguments, data, seconds, report):
    """Train the transferred super-network for that many seconds; returns it and its epochs."""
    space = load_supernet(arguments.supernet)[0].space
    choices = Choices.of(space)

    def sample(step):
        rng = np.random.default_rng([arguments.seed, step, 3])
        resolution = int(rng.choice(space.resolutions))
        drawn = [choices.sample(space, space.widths[0], resolution, rng) for _ in range(2)]
        return [space.full(resolution), *drawn]

    def run(epochs):
        supernet = load_supernet(arguments.supernet)[0].with_classes(data.classes, arguments.seed)
        began = time.monotonic()
        adapt(
            supernet,
            sample,
            data,
            LoopSettings(
                epochs=epochs,
                learning_rate=arguments.learning_rate,
                warmup_epochs=epochs / 10,
                batch_size=arguments.batch_size,
                weight_decay=3e-4,
                clip=5.0,
                seed=arguments.seed,
            ),
            progress=lambda *_: report(time.monotonic() - began),
        )
        return supernet, time.monotonic() - began

    run(0.2)  # warms up
    _, trial = run(1.0)
    epochs = max(1.0, 0.97 * seconds / trial)
    supernet, _ = run(epochs)
    return supernet, epochs


if __name__ == "__main__":
    main()
