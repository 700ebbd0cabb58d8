"""Does a super-network rank its sub-networks as training each by itself would?

    python benchmarks/inherited_accuracy.py nano-ee-d-fashion-mnist --data fashion-mnist --out inherited

Draws --networks random sub-networks, takes --trained of them, evenly spaced in MACs, and trains each from
scratch. All are judged with inherited weights too. Test images judge both ways; neither chose anything by
them. Networks that are trained already are in the folder --out, and not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.load import load_data
from nat2deploy.files import read_json, write_json
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower, plan_network, total_macs, total_params
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge
from nat2deploy.training.finetune import train_network
from nat2deploy.training.loop import LoopSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", help="a file, or the name of a shipped one")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--trained", type=int, default=12)
    parser.add_argument("--epochs", type=float, default=4.0, help="of each stand-alone training")
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    arguments = parser.parse_args()

    supernet, info = load_supernet(find_supernet(arguments.supernet))
    space = supernet.space
    data = load_data(arguments.data, base_resolution=max(space.resolutions))
    rng = np.random.default_rng([arguments.seed, 21])
    drawn = random_architectures(IntegerEncoding(space), rng, arguments.networks)
    counts = {a: lower(space, a, info.classes) for a in drawn}
    drawn.sort(key=lambda a: total_macs(counts[a]))
    spaced = np.linspace(0, len(drawn) - 1, arguments.trained).round().astype(int)
    chosen = [drawn[index] for index in spaced]
    evaluator = SubNetworkEvaluator(data, seed=arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)

    rows = []
    with Progress() as bars:
        alone = {a: _alone(a, space, data, arguments, bars) for a in chosen}
        task = bars.add_task("inherited", total=len(drawn))
        for a in drawn:
            network = evaluator.network(supernet, a)
            rows.append(
                {
                    "id": a.id,
                    "macs": total_macs(counts[a]),
                    "params": total_params(counts[a]),
                    "inherited_top1": judge(network, data, data.test, a.resolution).top1,
                    "alone_top1": alone.get(a),
                }
            )
            bars.advance(task)

    both = [row for row in rows if row["alone_top1"] is not None]
    inherited = [row["inherited_top1"] for row in both]
    trained = [row["alone_top1"] for row in both]
    tau, rho = kendalltau(inherited, trained), spearmanr(inherited, trained)
    table = Table("sub-network", "MACs", "params", "inherited", "alone", title="test top-1")
    for row in both:
        table.add_row(
            row["id"],
            f"{row['macs'] / 1e6:.2f}M",
            f"{row['params'] / 1e3:.0f}k",
            f"{row['inherited_top1']:.2%}",
            f"{row['alone_top1']:.2%}",
        )
    Console().print(table)
    everyone = np.array([row["inherited_top1"] for row in rows])
    Console().print(
        f"{len(rows)} random sub-networks, inherited: {everyone.min():.2%} to {everyone.max():.2%}, mean "
        f"{everyone.mean():.2%}, standard deviation {everyone.std():.2%}\n"
        f"inherited against alone, {len(both)} sub-networks: Kendall tau {tau.statistic:.3f} "
        f"(p {tau.pvalue:.2g}), Spearman {rho.statistic:.3f}, mean difference "
        f"{np.mean(np.subtract(inherited, trained)):+.2%}"
    )
    write_json(
        arguments.out / "inherited_accuracy.json",
        {
            "epochs": arguments.epochs,
            "kendall_tau": float(tau.statistic),
            "p": float(tau.pvalue),
            "spearman": float(rho.statistic),
            "rows": rows,
        },
    )


def _alone(architecture, space, data, arguments, bars) -> float:
    """Test accuracy of a sub-network trained from scratch."""
    recipe = {
        key: getattr(arguments, key) for key in ("data", "epochs", "learning_rate", "batch_size", "seed")
    }
    path = arguments.out / f"{architecture.id}.json"
    if path.exists() and (held := read_json(path, "figure"))["recipe"] == recipe:
        return held["top1"]
    torch.manual_seed(arguments.seed)
    network = SubNetwork(plan_network(space, architecture, data.classes))
    settings = LoopSettings(
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch_size,
        warmup_epochs=arguments.epochs / 10,
        clip=5.0,
        seed=arguments.seed,
    )
    task = bars.add_task(f"alone {architecture.id}")
    train_network(
        network,
        data,
        settings,
        architecture.resolution,
        progress=lambda done, total, loss: bars.update(task, completed=done, total=total),
    )
    top1 = judge(network, data, data.test, architecture.resolution).top1
    write_json(path, {"architecture": str(architecture), "recipe": recipe, "top1": top1})
    return top1


if __name__ == "__main__":
    main()
