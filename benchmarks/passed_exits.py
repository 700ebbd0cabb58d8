"""What does judging the early exits that a network passes cost, beside judging the network alone?

    python benchmarks/passed_exits.py nano-ee-d-fashion-mnist --data digits --json passed.json

Random sub-networks are judged as a search judges them, alone and with what they pass, one after the other in
turns, on one thread. Each passed one is then judged by itself, too: to be what it was judged with the other.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from nat2deploy.data.load import load_data
from nat2deploy.files import write_json
from nat2deploy.search.judges.base import Job, JobRunner, Judged
from nat2deploy.search.passed_exits import with_passed
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", help="a file, or the name of a shipped one")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--recalibration-images", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    supernet, _ = load_supernet(find_supernet(arguments.supernet))
    space = supernet.space
    data = load_data(arguments.data, base_resolution=max(space.resolutions))
    judge = JobRunner(
        SubNetworkEvaluator(data, seed=arguments.seed, recalibration_images=arguments.recalibration_images)
    )
    if supernet.classes != data.classes:
        supernet = supernet.with_classes(data.classes)
    rng = np.random.default_rng([arguments.seed, 31])
    drawn = random_architectures(IntegerEncoding(space), rng, arguments.networks)

    def timed(job: Job) -> tuple[Judged, float]:
        began = time.process_time()
        return judge(supernet, job), time.process_time() - began

    alone_s = together_s = each_s = 0.0
    passed = differ = 0
    for turn, architecture in enumerate(drawn):
        alone = Job(architecture)
        (together,) = with_passed([alone], space)
        pair = (alone, together) if turn % 2 == 0 else (together, alone)
        found = {job: timed(job) for job in pair}
        judged, seconds = found[together]
        alone_s += found[alone][1]
        together_s += seconds
        passed += len(together.passed)
        differ += judged.accuracy != found[alone][0].accuracy
        for one, accuracy in zip(together.passed, judged.passed, strict=True):
            itself, seconds = timed(Job(one))
            each_s += seconds
            differ += itself.accuracy != accuracy

    table = Table("networks judged", "accuracies", "seconds", "of those alone")
    table.add_row("alone", str(len(drawn)), f"{alone_s:.1f}", "1.00")
    count = len(drawn) + passed
    table.add_row("with what they pass", str(count), f"{together_s:.1f}", f"{together_s / alone_s:.2f}")
    every_s = alone_s + each_s
    table.add_row("all of these alone", str(count), f"{every_s:.1f}", f"{every_s / alone_s:.2f}")
    Console().print(table)
    Console().print(f"{differ} of {count} accuracies differ from those alone")
    if arguments.json is not None:
        figures = {
            "networks": len(drawn),
            "passed": passed,
            "differ": differ,
            "alone_s": alone_s,
            "together_s": together_s,
            "each_alone_s": every_s,
            "ratio": together_s / alone_s,
        }
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
