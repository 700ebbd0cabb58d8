"""What does a bundle's runner add to the raw engine's latency?

    python benchmarks/runner_overhead.py runs/quickstart/bundle --json overhead.json

Times, in turn and in random order, ONNX Runtime's own `session.run` on the bundle's model and the runner's
`Network.logits` on the same input, call by call, and compares each pair of rounds. The whole way from decoded
pixels to classes, which the raw engine does not go, is timed beside them. Exit code 1 where the ratio's
interval lies above 1.03.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.runner.network import Network
from nat2deploy.files import write_json
from nat2deploy.measure.pinning import pinned_cores
from nat2deploy.measure.statistics import median_interval

LIMIT = 1.03


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--calls", type=int, default=50, help="of each in a round, one after another")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    asked = parser.parse_args()
    with open_bundle(asked.bundle) as bundle:
        bundle.check()
        network = Network(bundle.folder, None)
        session = raw_session(bundle.model, network.threads)
    rng = np.random.default_rng(asked.seed)
    image = rng.standard_normal(network.shape).astype(np.float32)
    pixels = rng.integers(0, 256, (*network.shape[2:], 3), dtype=np.uint8)
    feed, names = {session.get_inputs()[0].name: image}, [session.get_outputs()[0].name]
    ways: dict[str, Callable[[], object]] = {
        "raw": lambda: session.run(names, feed),
        "runner": lambda: network.logits(image),
        "from_pixels": lambda: network.classify(pixels, 5),
    }
    with pinned_cores(network.threads):
        medians = interleaved(ways, rounds=asked.rounds, calls=asked.calls, seed=asked.seed)
    ratios = medians["runner"] / medians["raw"]
    low, high = median_interval(ratios)
    figures = {
        "network": network.manifest["network"],
        **{f"{name}_ms": float(np.median(values)) for name, values in medians.items()},
        "ratio": float(np.median(ratios)),
        "ratio_low": low,
        "ratio_high": high,
        "rounds": asked.rounds,
        "calls": asked.calls,
    }
    for name, value in figures.items():
        print(f"{name:16} {value}")
    if asked.json:
        write_json(asked.json, figures)
    return int(low > LIMIT)


def raw_session(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def interleaved(
    ways: dict[str, Callable[[], object]], *, rounds: int, calls: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the median of each way's calls in each round, in ms; within a round the ways alternate."""
    order, rng = list(ways), random.Random(seed)
    medians: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 3):  # the first three warm up
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(calls):
            rng.shuffle(order)
            for name in order:
                way = ways[name]
                way()  # what ran before has left its own things in the caches
                start = time.perf_counter()
                way()
                times[name].append(1e3 * (time.perf_counter() - start))
        if turn >= 3:
            for name, values in times.items():
                medians[name].append(float(np.median(values)))
    return {name: np.array(values) for name, values in medians.items()}


if __name__ == "__main__":
    sys.exit(main())
