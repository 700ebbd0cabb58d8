"""How many training images do BN's statistics need before a sub-network is judged?

    python benchmarks/recalibration.py nano-ee-d-fashion-mnist --data fashion-mnist --json recalibration.json

Random sub-networks are judged on the same validation images with statistics from more and more training
images, each number drawn anew several times, on one thread. What the accuracies differ by from those with
``--reference`` images is what so few images cost; beside it stands what the validation images themselves
leave open, which is the standard error of an accuracy on so many.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from nat2deploy.data.load import load_data
from nat2deploy.files import write_json
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", help="a file, or the name of a shipped one")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--images", type=int, nargs="+", default=[125, 250, 500, 1000, 2000])
    parser.add_argument("--draws", type=int, default=2, help="of each number")
    parser.add_argument("--reference", type=int, default=8000)
    parser.add_argument("--validation-images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    supernet, _ = load_supernet(find_supernet(arguments.supernet))
    space = supernet.space
    data = load_data(arguments.data, base_resolution=max(space.resolutions))
    if supernet.classes != data.classes:
        supernet = supernet.with_classes(data.classes)
    rng = np.random.default_rng([arguments.seed, 37])
    drawn = random_architectures(IntegerEncoding(space), rng, arguments.networks)

    def judged(images: int, seed: int) -> tuple[list[float], float]:
        """Top-1 of each network with statistics from so many images, and the seconds that all took."""
        evaluator = SubNetworkEvaluator(data, seed=seed, recalibration_images=images)
        evaluator.validation = validation  # the same for every seed
        began = time.process_time()
        return [evaluator(supernet, one).top1 for one in drawn], time.process_time() - began

    validation = data.validation.subset(
        min(arguments.validation_images, len(data.validation)), arguments.seed
    )
    most = min(arguments.reference, len(data.train))
    reference, reference_s = (np.array(one) for one in judged(most, arguments.seed))
    rows = []
    for images in sorted(images for images in arguments.images if images < most):
        draws = [judged(images, arguments.seed + 1 + draw) for draw in range(arguments.draws)]
        off = np.array([top1 for top1, _ in draws]) - reference
        rows.append(
            {
                "images": images,
                "seconds": float(np.mean([seconds for _, seconds in draws])) / len(drawn),
                "mean_difference": float(off.mean()),
                "difference": float(np.sqrt((off**2).mean())),
                "kendall_tau": float(np.mean([kendalltau(top1, reference).statistic for top1, _ in draws])),
            }
        )
    accuracy = float(reference.mean())
    standard_error = float(np.sqrt(accuracy * (1 - accuracy) / len(validation)))

    table = Table("images", "seconds a network", "difference", "on average", "Kendall tau")
    for row in rows:
        table.add_row(
            f"{row['images']:,}",
            f"{row['seconds']:.2f}",
            f"{100 * row['difference']:.2f} points",
            f"{100 * row['mean_difference']:+.2f} points",
            f"{row['kendall_tau']:.3f}",
        )
    table.add_row(f"{most:,}", f"{float(reference_s) / len(drawn):.2f}", "", "", "")
    Console().print(table)
    Console().print(
        f"standard error of an accuracy of {accuracy:.1%} on {len(validation):,} images: "
        f"{100 * standard_error:.2f} points"
    )
    if arguments.json is not None:
        figures = {
            "rows": rows,
            "reference_images": most,
            "accuracy": accuracy,
            "standard_error": standard_error,
        }
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
