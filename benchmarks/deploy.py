"""Our networks against torchvision's, trained as long on the same data and deployed to the same engines.

    python benchmarks/deploy.py --data fashion-mnist --epochs 4 --out deploy
    python benchmarks/deploy.py --data digits --run runs/quickstart/search --out deploy-digits

--networks of the run's front (searched here without --run) are tuned by `finetune`, from inherited weights;
the peers start from random ones. All see the same images, augmentation, batches and losses, each for
--minutes of processor time, or for --epochs. What is behind all of ours (the super-network's training and the
search) is stated as shared. With --peers-minutes the peers are trained once more, for as long as that says:
`total` gives them what all of ours took together, in equal parts. All are then exported as bundles, judged on
the test split in each engine, and measured interleaved in one run an engine. In `int8-faster` layers that 8
bits make slower stay in float, on both sides (`export --int8-layers faster`).

The report says for each peer whether ours are as accurate at its latency, and 1.5 times faster at its
accuracy. Killed, the same command goes on; a minute of training is lost at most.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

from deploy_bundles import Deployment
from deploy_report import compare, draw, print_report, rows_of
from deploy_training import SEARCH, Budget, Ours, Peers, Trained, own_run, spaced
from peers import LEARNING_RATES
from rich.console import Console

from nat2deploy.cli.progress import progress
from nat2deploy.data.load import load_data
from nat2deploy.errors import UserError
from nat2deploy.files import write_json
from nat2deploy.progress import Report
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.front import load_front

ENGINES = ("onnxruntime:fp32", "onnxruntime:int8", "onnxruntime:int8-faster", "openvino:fp32")


def main() -> None:
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        with progress() as report:
            parts = _Parts(arguments, report)
            trained, shared = parts.train()
            deployment = Deployment(arguments.out, parts.data, parts.peers, arguments.seed)
            bundles = {
                one: deployment.export(list(trained.values()), one, report) for one in arguments.engines
            }
            measured = {
                engine: deployment.measure(engine, found, arguments.seconds, report)
                for engine, found in bundles.items()
                if found
            }
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    rows = {engine: rows_of(found, trained, shared) for engine, found in measured.items()}
    sides = sorted({one.side for one in trained.values()} - {"ours"})
    verdicts = {engine: {side: compare(held, side) for side in sides} for engine, held in rows.items()}
    console = Console(width=170)
    for engine, held in rows.items():
        print_report(console, engine, held, verdicts[engine])
    for what in deployment.refused:
        console.print(f"not deployed: {what}", highlight=False, markup=False)
    given = {key: str(value) for key, value in vars(arguments).items()}
    found = {"arguments": given, "refused": deployment.refused, "rows": rows, "verdicts": verdicts}
    write_json(arguments.out / "deploy.json", found)
    amount = f"{arguments.epochs:g} epochs" if arguments.epochs else f"{arguments.minutes:g} minutes"
    draw(rows, arguments.out / "deploy.png", f"{arguments.data}: each network trained for {amount}")
    console.print(f"{arguments.out / 'deploy.json'}, {arguments.out / 'deploy.png'}")


class _Parts:
    """The data and both sides."""

    def __init__(self, arguments: argparse.Namespace, report: Report) -> None:
        self.arguments = arguments
        self.report = report
        self.data = load_data(arguments.data)
        out, seed = arguments.out, arguments.seed
        search = SearchConfig(
            supernet=arguments.supernet,
            data=arguments.data,
            table=arguments.table,
            budgets=tuple(arguments.budget),
            settings=SEARCH.model_copy(update={"seed": seed}),
        )
        run, search_minutes = own_run(arguments.run, out, search, report)
        if search_minutes is None:
            search_minutes = arguments.search_minutes
        self.shared = None if search_minutes is None else arguments.supernet_minutes + search_minutes
        batch_size = min(arguments.batch_size, len(self.data.train))
        config = FinetuneConfig(batch_size=batch_size, seed=seed)
        self.ours = Ours(run, self.data, config, out / "minutes.json")
        self.peers = Peers(out / "peers", self.data, arguments.resolution, batch_size, seed)
        front = load_front(RunDirectory(run).front_path)
        self.chosen = spaced([one for one in front.networks if one.feasible], arguments.networks)
        self.budget = Budget(out / "speed.json", self.data, batch_size)

    def train(self) -> tuple[dict[str, Trained], float | None]:
        """Train both sides; returns all networks by name, and the minutes behind all of ours."""
        arguments, report = self.arguments, self.report
        trials: dict[str, Any] = {one.id: partial(self.ours.trial, one) for one in self.chosen}
        trials |= {name: partial(self.peers.trial, name) for name in arguments.peers}
        if arguments.epochs is None or arguments.peers_minutes is not None:
            self.budget.measure(trials, report)

        def epochs(name: str) -> float:
            return arguments.epochs or self.budget.epochs(name, arguments.minutes)

        trained = []
        for one, name in zip_longest(self.chosen, arguments.peers):  # by turns: half done, it is still fair
            if one is not None:
                trained.append(self.ours.train(one, epochs(one.id), report))
            if name is not None:
                trained.append(self.peers.train(name, "peers", name, epochs(name), report))
        if arguments.peers_minutes is not None:
            longer, side = _longer(arguments.peers_minutes, self.shared, trained, len(arguments.peers))
            for name in arguments.peers:
                amount = self.budget.epochs(name, longer)
                trained.append(self.peers.train(name, side, f"{name}-longer", amount, report))
        return {one.name: one for one in trained}, self.shared


def _longer(words: str, shared: float | None, trained: list[Trained], count: int) -> tuple[float, str]:
    """The minutes a peer of the second round, and what that side is called."""
    if words != "total":
        return float(words), f"peers, {float(words):g} minutes"
    minutes = [one.minutes for one in trained if one.side == "ours"]
    if shared is None or None in minutes:
        raise UserError(
            "--peers-minutes total: it is not known how long the search or a network's training took; "
            "give a number of minutes"
        )
    return (shared + sum(minutes)) / count, "peers, equal time in all"  # type: ignore[arg-type]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--run", type=Path, help="of `nat2deploy search`; searched here when not given")
    parser.add_argument("--supernet", default="nano-ee-d-fashion-mnist", help="that is searched")
    parser.add_argument(
        "--table", default="nano-ee-d-28-32px-x86-1-thread", help="of latencies, to search by"
    )
    parser.add_argument("--budget", nargs="*", default=["latency<=0.35ms"], help="of the search")
    parser.add_argument("--supernet-minutes", type=float, default=90.0, help="its training took [90]")
    parser.add_argument("--search-minutes", type=float, help="the run's search took, if it does not say")
    parser.add_argument("--networks", type=int, default=6, help="of the front, evenly apart in latency [6]")
    parser.add_argument("--peers", nargs="+", choices=list(LEARNING_RATES), default=list(LEARNING_RATES))
    parser.add_argument("--resolution", type=int, default=28, help="the peers', in pixels [28]")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--minutes", type=float, default=5.0, help="of processor time, each network [5]")
    amount.add_argument("--epochs", type=float, help="each network, instead")
    parser.add_argument("--peers-minutes", help="train the peers once more, for so long; or `total`")
    parser.add_argument("--batch-size", type=int, default=FinetuneConfig().batch_size)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(_installed()))
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring, each engine [60]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="everything goes here, and is gone on with")
    return parser.parse_args()


def _installed() -> list[str]:
    """Those that can be run, without the one that takes minutes a network."""
    quick = [engine for engine in ENGINES if not engine.endswith("-faster")]
    return [engine for engine in quick if find_spec(engine.partition(":")[0]) is not None]


if __name__ == "__main__":
    main()
