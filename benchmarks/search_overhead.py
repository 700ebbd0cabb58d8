"""Where a real search's time goes: judging, training, and its own overhead.

    python benchmarks/search_overhead.py nano-ee-d-fashion-mnist --data digits \
        --table latency_tables/nano-ee-d-28-32px-x86-1-thread.json --budget 'latency<=0.25ms' --json

Runs a search in a temporary folder, with the default settings but for those given, and takes the time of each
part. Overhead is all that neither judges sub-networks nor trains the super-network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table
from nat2deploy.data.load import load_data
from nat2deploy.search import nat2, proposal
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.judges.base import JobRunner
from nat2deploy.search.presets import PRESETS
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.weights import SearchWeights
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.supernet.checkpoint import supernet_info
from nat2deploy.supernet.shipped import find_supernet

WORK = ("judge sub-networks", "train the super-network")


class Stopwatch:
    """Adds up the wall time of calls, by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return call(*given, **named)
            finally:
                self.seconds[part] += time.monotonic() - began

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", help="a file, or the name of a shipped one")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--budget", action="append", default=[])
    parser.add_argument("--preset", default="ours", choices=list(PRESETS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--archive-size", type=int)
    parser.add_argument("--candidates", type=int, help="a round; else as many as take an adaptation's time")
    parser.add_argument("--warmup-epochs", type=float)
    parser.add_argument("--adapt-epochs", type=float)
    parser.add_argument("--threads", type=int, default=1, help="of training and judging")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    names = ("rounds", "archive_size", "candidates", "warmup_epochs", "adapt_epochs")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    settings = SearchSettings(preset=arguments.preset, **given)
    source = find_supernet(arguments.supernet)
    info = supernet_info(source)
    space = info.space.restrict(widths=info.widths)
    data = load_data(arguments.data, base_resolution=max(space.resolutions))
    table = None if arguments.table is None else load_table(arguments.table)
    objectives = Objectives(
        CostModel(space, data.classes, table),
        IntegerEncoding(space),
        parse_budgets(arguments.budget),
        settings.objectives,
        settings.accuracy_only,
    )
    watch = Stopwatch()
    nat2.fit = watch.timed("fit surrogates", nat2.fit)
    JobRunner.__call__ = watch.timed(WORK[0], JobRunner.__call__)  # type: ignore[method-assign]
    proposal.evolve = watch.timed("evolve on the surrogate", proposal.evolve)
    with tempfile.TemporaryDirectory() as folder:
        weights = SearchWeights(Path(folder), [source], space, data, settings)
        weights.prepare = watch.timed(WORK[1], weights.prepare)  # type: ignore[method-assign]
        weights.adapt = watch.timed(WORK[1], weights.adapt)  # type: ignore[method-assign]
        search = nat2.Nat2Search(objectives, weights, data, settings, Path(folder))
        began = time.monotonic()
        search.run()
        total = time.monotonic() - began
        judged = search.file.judged
    parts = dict(watch.seconds)
    parts["the rest: draws, choice of candidates, archive"] = total - sum(parts.values())
    overhead = sum(seconds for part, seconds in parts.items() if part not in WORK)
    if arguments.json:
        print(
            json.dumps(
                {"seconds": total, "evaluations": judged, "overhead": overhead / total, "parts": parts}
            )
        )
        return
    rows = Table("part", "s", "share", title=f"{judged} evaluations, {total:.0f} s")
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        rows.add_row(part, f"{seconds:.1f}", f"{seconds / total:.1%}")
    rows.add_row("overhead in all", f"{overhead:.1f}", f"{overhead / total:.1%}", style="bold")
    Console().print(rows)


if __name__ == "__main__":
    main()
