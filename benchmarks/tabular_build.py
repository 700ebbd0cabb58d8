"""The tabular benchmark's file from what ``tabular_evaluate.py`` judged.

    python benchmarks/tabular_build.py evaluated --out benchmarks/tabular/nano-ee-d-fashion-mnist.npz

``--known FILE.npz`` adds what an earlier benchmark's file of the same super-network and data holds.
Prints how well the model that answers for all other architectures predicts held-out ones. Held out together
are networks that share their first two stages; those of one stage are all judged, so they never are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tabular_evaluate import RECALIBRATION_IMAGES, TEST_IMAGES

from nat2deploy.data.load import load_data
from nat2deploy.search.tabular import (
    SPLITS,
    Generation,
    ModelQuality,
    TabularInfo,
    load_tabular,
    save_tabular,
)
from nat2deploy.search.tabular_model import cross_validate
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.supernet.checkpoint import supernet_info
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.version import __version__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluated", type=Path, help="folder of forward.jsonl and backward.jsonl")
    parser.add_argument("--supernet", default="nano-ee-d-fashion-mnist")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--known", type=Path, help="an earlier benchmark's file")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    weights = find_supernet(arguments.supernet)
    description = supernet_info(weights)
    space = description.space
    data = load_data(arguments.data, base_resolution=max(space.resolutions))
    encoding = IntegerEncoding(space)
    images = {"validation": len(data.validation), "test": min(TEST_IMAGES, len(data.test))}
    weights_sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    rows: dict[Architecture, list[int]] = {}
    if arguments.known is not None:
        held = load_tabular(arguments.known)
        made = held.info.generation
        if (made.supernet_sha256, made.data_sha256, made.recalibration_images, held.info.images) != (
            weights_sha256,
            data.fingerprint(),
            RECALIBRATION_IMAGES,
            images,
        ):
            raise SystemExit(f"{arguments.known} was judged with other weights or data; leave --known out")
        rows.update(
            (encoding.decode(genes), counts.tolist())
            for genes, counts in zip(held.genes, held.right, strict=True)
        )
    for path in sorted(arguments.evaluated.glob("*.jsonl")):
        text = path.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():
            value = json.loads(line)
            rows[parse_architecture(space, value["architecture"])] = [value[f"{s}_right"] for s in SPLITS]
    architectures = sorted(rows, key=lambda a: tuple(encoding.encode(a)))
    genes = encoding.encode_all(architectures)
    right = np.array([rows[a] for a in architectures])
    accuracies = right / np.array([images[split] for split in SPLITS])

    prefixes: dict[object, int] = {}
    groups = [
        -1 if len(a.stages) == 1 else prefixes.setdefault((a.resolution, a.stages[:2]), len(prefixes))
        for a in architectures
    ]
    quality, residuals = cross_validate(encoding, genes, accuracies, groups)
    covariance = np.cov(residuals.T)
    info = TabularInfo(
        space=space,
        classes=description.classes,
        images=images,
        generation=Generation(
            command=f"python benchmarks/tabular_evaluate.py --supernet {arguments.supernet} "
            f"--data {arguments.data} --seed {arguments.seed} --out evaluated",
            supernet=arguments.supernet,
            supernet_sha256=weights_sha256,
            data=arguments.data,
            data_sha256=data.fingerprint(),
            recalibration_images=RECALIBRATION_IMAGES,
            seed=arguments.seed,
            tool_version=__version__,
        ),
        model=ModelQuality(
            held_out=dict(zip(SPLITS, quality, strict=True)),
            residual_covariance=tuple(tuple(float(f"{v:.6e}") for v in row) for row in covariance),
        ),
    )
    save_tabular(arguments.out, info, genes, right)
    table = Table(
        "split",
        "images",
        "top-1",
        "held out",
        "Kendall tau",
        "R²",
        "RMSE",
        title=f"{len(genes)} sub-networks",
    )
    for index, (split, figures) in enumerate(info.model.held_out.items()):
        table.add_row(
            split,
            str(images[split]),
            f"{accuracies[:, index].min():.2%} to {accuracies[:, index].max():.2%}",
            str(figures.architectures),
            f"{figures.kendall_tau:.3f}",
            f"{figures.r2:.3f}",
            f"{figures.rmse:.2%}",
        )
    Console().print(table)
    Console().print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
