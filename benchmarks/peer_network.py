"""A torchvision network trained as long as a run of ours, then both measured side by side.

    python benchmarks/peer_network.py runs/fashion-mnist --network mobilenet_v3_small --json peer.json

The peer gets the wall-clock time that the run spent on training, search and fine-tuning (or --minutes), the
same data, augmentation and seed. Every fine-tuned network of the run and the peer are then exported the
same way and measured interleaved in one go.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from peers import new_peer, parameters, peer_settings, step_seconds
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nat2deploy.data.load import load_data
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.files import read_json, write_json
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.networks import measure_engines
from nat2deploy.run.config import load_pipeline
from nat2deploy.run.networks import open_network
from nat2deploy.training.evaluation import judge
from nat2deploy.training.finetune import train_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a folder of `nat2deploy run`")
    parser.add_argument("--network", default="mobilenet_v3_small", help="a torchvision classification model")
    parser.add_argument("--resolutions", default="28", help="the peer's, in pixels, such as 28,64")
    parser.add_argument("--minutes", type=float, help="training time a peer instead of the run's")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    config = load_pipeline(arguments.run / "config.toml")
    timings = read_json(arguments.run / "timings.json", "timings")
    spent_s = sum(timings[stage] for stage in ("train", "search", "finetune"))
    seconds = arguments.minutes * 60 if arguments.minutes is not None else spent_s
    front = read_json(arguments.run / "search" / "front.json", "front")
    data = load_data(config.data, base_resolution=64)

    rows, engines = [], {}
    for resolution in map(int, arguments.resolutions.split(",")):
        name = f"{arguments.network} {resolution} px"
        peer = new_peer(arguments.network, data.classes, config.seed)
        # From a few steps on the spot, so that the cosine ends in time.
        per_epoch = len(data.train) // 128 * step_seconds(peer, data, resolution)
        epochs = max(0.1, seconds / per_epoch)
        settings = peer_settings(epochs, arguments.learning_rate, seed=config.seed)
        began = time.monotonic()
        with Progress() as bars:
            task = bars.add_task(name)
            train_network(
                peer,
                data,
                settings,
                resolution,
                time_limit_s=1.1 * seconds,
                progress=lambda done, total, loss, b=bars, t=task: b.update(t, completed=done, total=total),
            )
        took = time.monotonic() - began
        peer.eval()
        rows.append(_row(name, judge(peer, data, data.test, resolution), parameters(peer), took / 60, epochs))
        shape = (config.target.batch, 3, resolution, resolution)
        noise = random_calibration(config.target, shape, config.seed)
        engines[name] = compile_model(peer, config.target, shape, calibration=noise)
    for network in front["networks"]:
        chosen, _ = open_network(arguments.run / "search", network["id"])
        resolution = chosen.info.choice.resolution
        name = f"nat2deploy {network['id']} {resolution} px"
        test = judge(chosen.network, data, data.test, resolution)
        rows.append(_row(name, test, parameters(chosen.network), spent_s / 60, None))
        shape = (config.target.batch, 3, resolution, resolution)
        noise = random_calibration(config.target, shape, config.seed)
        engines[name] = compile_model(chosen.network, config.target, shape, calibration=noise)
    with pinned_threads(config.target):
        measured = measure_engines(engines, seed=config.seed, precision=0.005, time_limit_s=60)
    for row in rows:
        summary = measured.summaries[row["network"]]
        row.update(latency_ms=summary.median_ms, p95_ms=summary.p95_ms)
    _print(rows)
    if arguments.json is not None:
        write_json(arguments.json, {"data": config.data, "target": config.target.model_dump(), "rows": rows})


def _row(name, test, params, minutes, epochs) -> dict:
    low, high = test.interval
    return {
        "network": name,
        "test_top1": test.top1,
        "test_low": low,
        "test_high": high,
        "params": params,
        "training_minutes": minutes,
        "epochs": epochs,
    }


def _print(rows) -> None:
    table = Table("network", "test top-1", "95 % interval", "latency", "p95", "params", "training")
    for row in sorted(rows, key=lambda row: row["latency_ms"]):
        table.add_row(
            row["network"],
            f"{row['test_top1']:.2%}",
            f"{row['test_low']:.2%} to {row['test_high']:.2%}",
            f"{row['latency_ms']:.3f} ms",
            f"{row['p95_ms']:.3f}",
            f"{row['params'] / 1e3:.0f}k",
            f"{row['training_minutes']:.1f} min",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
