"""Training with all cores beside other programs: threads that spin against threads that soon sleep.

    python benchmarks/busy_machine.py --steps 12 --json busy_machine.json

One program for each way trains random sub-networks of ``nano-ee-d``, in turn, on an idle machine and then
beside programs that keep cores busy. The command ``nat2deploy`` has short spins (``GOMP_SPINCOUNT``). PyTorch
by itself spins for about a millisecond where GNU OpenMP is behind it, as on Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from nat2deploy.cli.app import SPIN_COUNT
from nat2deploy.engines.cores import available_cores
from nat2deploy.files import write_json

BATCH = 64


def train(steps: int, threads: int) -> None:
    """Print the seconds of each of so many training steps, but the first two."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from nat2deploy.space.encoding import IntegerEncoding
    from nat2deploy.space.sampling import random_architectures
    from nat2deploy.space.search_space import load_space
    from nat2deploy.supernet.network import SuperNetwork

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    space = load_space("nano-ee-d").restrict(resolutions=(28, 32))
    network = SuperNetwork(space, 1.0, 10).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    seconds = []
    for architecture in random_architectures(IntegerEncoding(space), np.random.default_rng(0), steps + 2):
        size = architecture.resolution
        images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
        classes = torch.randint(0, 10, (BATCH,))
        began = time.perf_counter()
        optimiser.zero_grad()
        F.cross_entropy(network(images, architecture), classes).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps(seconds[2:]))


def step_ms(steps: int, threads: int, given: dict[str, str]) -> float:
    """Median milliseconds of a step in a program of its own, with an environment."""
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    line = [sys.executable, __file__, "--steps", str(steps), "--threads", str(threads), "--train"]
    done = subprocess.run(line, env=clean | given, stdout=subprocess.PIPE, text=True, check=True)
    return 1e3 * median(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--busy", type=int, default=1, help="programs that keep a core busy each")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.steps, arguments.threads)
        return
    ways = {
        "one thread": (1, {}),
        "all cores, as PyTorch has it": (arguments.threads, {}),
        "all cores, as nat2deploy has it": (arguments.threads, {"GOMP_SPINCOUNT": SPIN_COUNT}),
    }
    idle = {name: step_ms(arguments.steps, *way) for name, way in ways.items()}
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(arguments.busy)]
    try:
        busy = {name: step_ms(arguments.steps, *way) for name, way in ways.items()}
    finally:
        for other in others:
            other.kill()
            other.wait()
    table = Table("a training step", "idle machine", f"beside {arguments.busy} busy", "ratio")
    for name in ways:
        table.add_row(name, f"{idle[name]:.0f} ms", f"{busy[name]:.0f} ms", f"{busy[name] / idle[name]:.1f}")
    Console().print(table)
    if arguments.json:
        write_json(arguments.json, {"threads": arguments.threads, "idle_ms": idle, "busy_ms": busy})


if __name__ == "__main__":
    main()
