"""Training speed of random sub-networks: our super-network against Once-For-All's released one.

    python benchmarks/supernet_step.py --json supernet_step.json

Same space, width, batch, resolution, architectures, optimiser and threads. Both train in turn, step by step,
in one process each, so that a busy machine slows both; memory is each process's peak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from nat2deploy.files import write_json
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space

CLASSES = 100


class Ours:
    """nat2deploy's super-network, as its training loop runs it."""

    def __init__(self, device: str) -> None:
        from nat2deploy.supernet.network import SuperNetwork

        self.module = SuperNetwork(load_space("ofa-mbv3"), 1.0, CLASSES).to(device).train()
        self.module.to(memory_format=torch.channels_last)

    def __call__(self, images: torch.Tensor, architecture: Architecture) -> torch.Tensor:
        return self.module(images.contiguous(memory_format=torch.channels_last), architecture)


class OnceForAll:
    """The released package's super-network, as its training script runs it."""

    def __init__(self, device: str) -> None:
        from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

        self.module = OFAMobileNetV3(
            n_classes=CLASSES,
            dropout_rate=0.0,
            width_mult=1.0,
            ks_list=[3, 5, 7],
            expand_ratio_list=[3, 4, 6],
            depth_list=[2, 3, 4],
        )
        self.module.to(device).train()

    def __call__(self, images: torch.Tensor, architecture: Architecture) -> torch.Tensor:
        layers = [layer for s in architecture.stages for layer in (*s, *[s[0]] * (4 - len(s)))]
        self.module.set_active_subnet(
            ks=[layer.kernel for layer in layers],
            e=[int(layer.expansion) for layer in layers],
            d=list(architecture.depths),
        )
        return self.module(images)


PEERS = {"nat2deploy": Ours, "once-for-all": OnceForAll}


def worker(name: str, arguments: argparse.Namespace, pipe: Connection) -> None:
    """Train a step for each architecture that comes through the pipe; answer with its seconds."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = PEERS[name](arguments.device)
    optimiser = torch.optim.SGD(network.module.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    shape = (arguments.batch, 3, arguments.resolution, arguments.resolution)
    images = torch.randn(shape, device=arguments.device)
    targets = torch.randint(0, CLASSES, (arguments.batch,), device=arguments.device)
    cuda = arguments.device.startswith("cuda")
    for architecture in iter(pipe.recv, None):
        began = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(network(images, architecture), targets).backward()
        optimiser.step()
        if cuda:
            torch.cuda.synchronize()
        pipe.send(time.perf_counter() - began)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send(torch.cuda.max_memory_allocated() / 2**20 if cuda else memory_mb)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="random sub-networks, after 3 to warm up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    # The two know one space; the resolution is the images', not one that the space lists.
    space = load_space("ofa-mbv3").restrict(resolutions=(128,), widths=(1.0,))
    rng = np.random.default_rng(arguments.seed)
    drawn = random_architectures(IntegerEncoding(space), rng, arguments.steps + 3)
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in PEERS:
        pipes[name], inner = context.Pipe()
        context.Process(target=worker, args=(name, arguments, inner), daemon=True).start()
    seconds: dict[str, list[float]] = {name: [] for name in PEERS}
    for number, architecture in enumerate(drawn):
        order = list(PEERS) if number % 2 else list(PEERS)[::-1]
        for name in order:
            pipes[name].send(architecture)
            seconds[name].append(pipes[name].recv())
    rows = []
    for name, pipe in pipes.items():
        pipe.send(None)
        steps = np.array(seconds[name][3:])
        rows.append(
            {
                "network": name,
                "images_per_s": arguments.batch / float(np.mean(steps)),
                "median_step_ms": 1e3 * float(np.median(steps)),
                "peak_memory_mb": float(pipe.recv()),
            }
        )
    ratios = np.array(seconds["once-for-all"][3:]) / np.array(seconds["nat2deploy"][3:])
    found = {
        "settings": {key: value for key, value in vars(arguments).items() if key != "json"},
        "rows": rows,
        "ratio": {
            "throughput": rows[0]["images_per_s"] / rows[1]["images_per_s"],
            "median": float(np.median(ratios)),
            "lowest": float(ratios.min()),
            "highest": float(ratios.max()),
        },
    }
    table = Table("network", "images/s", "median step", "peak memory")
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['images_per_s']:.1f}",
            f"{row['median_step_ms']:.0f} ms",
            f"{row['peak_memory_mb']:.0f} MB",
        )
    console = Console()
    console.print(table)
    console.print(f"ratio {json.dumps({k: round(v, 2) for k, v in found['ratio'].items()})}")
    if arguments.json is not None:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
