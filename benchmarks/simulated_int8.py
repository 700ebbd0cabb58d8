"""Does an int8 network answer as the search's simulation says that it will?

    python benchmarks/simulated_int8.py --supernet nano-ee-d-fashion-mnist --networks 8
    python benchmarks/simulated_int8.py --run run

Judges random sub-networks of a super-network, or the int8 networks of a search's front, with inherited
weights on validation images: in floats, in simulated int8, and by the ONNX Runtime engine of the int8 file.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nat2deploy.cli.console import percent, print_json
from nat2deploy.data.batches import batches
from nat2deploy.data.load import load_data
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.judging import inputs_of
from nat2deploy.deploy.parity import run_all
from nat2deploy.engines.registry import compile_model
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import load_front
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.target import Target
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.training.simulated_precision import CALIBRATION_IMAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--supernet", help="a file, or the name of a shipped one")
    where.add_argument("--run", type=Path, help="a search over precisions")
    parser.add_argument("--data", default="fashion-mnist", help="with --supernet")
    parser.add_argument("--networks", type=int, default=8, help="with --supernet")
    parser.add_argument("--images", type=int, default=2000, help="of the validation split")
    parser.add_argument("--recalibration-images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    if arguments.run is None:
        supernet, info = load_supernet(find_supernet(arguments.supernet))
        encoding = IntegerEncoding(supernet.space)
        rng = np.random.default_rng([arguments.seed, 31])
        chosen = random_architectures(encoding, rng, arguments.networks)
        spec = arguments.data
    else:
        run = RunDirectory(arguments.run)
        supernet, info = load_supernet(run.supernet_path)
        found = [n for n in load_front(run.front_path).networks if n.precision == "int8"]
        chosen = [parse_architecture(info.space, n.architecture) for n in found]
        spec = run.read_config(SearchConfig).data
    data = load_data(spec, base_resolution=max(info.space.resolutions))
    evaluator = SubNetworkEvaluator(
        data,
        seed=arguments.seed,
        recalibration_images=arguments.recalibration_images,
        validation_images=arguments.images,
    )
    rows = [
        _judge(evaluator, supernet, replace(a, precision="int8"))
        for a in track(chosen, "judge", disable=arguments.json)
    ]
    if arguments.json:
        print_json(rows)
        return
    table = Table("sub-network", "floats", "simulated int8", "engine int8", "same answers", title="top-1")
    for row in rows:
        shares = ("float_top1", "simulated_top1", "engine_top1", "same_answers")
        table.add_row(row["id"], *(percent(row[key]) for key in shares))
    off = np.array([row["simulated_top1"] - row["engine_top1"] for row in rows])
    Console().print(table)
    Console().print(
        f"{len(rows)} networks on {len(evaluator.validation)} images: simulated minus engine "
        f"{off.mean():+.2%} on average, "
        f"{np.abs(off).mean():.2%} without sign, {np.abs(off).max():.2%} at most"
    )


def _judge(evaluator, supernet, architecture) -> dict[str, object]:
    data, split = evaluator.data, evaluator.validation
    network = evaluator.network(supernet, architecture)
    preprocessing = Preprocessing(resolution=architecture.resolution, mean=data.mean, std=data.std)
    calibration = data.train.subset(CALIBRATION_IMAGES, evaluator.seed).images
    target = Target(precision="int8")
    shape = (target.batch, 3, architecture.resolution, architecture.resolution)
    engine = compile_model(network, target, shape, calibration=inputs_of(preprocessing, calibration))
    right = {"float": 0, "simulated": 0, "engine": 0}
    same = 0
    stream = batches(
        split,
        batch_size=250,
        resolution=architecture.resolution,
        normalisation=data.normalisation,
        shuffle_seed=None,
    )
    simulated = evaluator.in_precision(network, architecture)[0]
    for images, targets in stream:
        with torch.inference_mode():
            answers = {"float": network(images).argmax(1), "simulated": simulated(images).argmax(1)}
        inputs = np.ascontiguousarray(images.numpy(), dtype=np.float32)
        answers["engine"] = torch.from_numpy(run_all(engine, inputs).argmax(axis=1))
        for name, answer in answers.items():
            right[name] += int((answer == targets).sum())
        same += int((answers["simulated"] == answers["engine"]).sum())
    shares = {f"{name}_top1": count / len(split) for name, count in right.items()}
    return {"id": architecture.id, **shares, "same_answers": same / len(split)}


if __name__ == "__main__":
    main()
