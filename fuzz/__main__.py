"""Give damaged input to every parser, a million times in all.

    python -m fuzz --count 1000000 --json fuzz.json

Exits with 1 when an input led to anything but a result or a refusal in words; each different fault is shown
once, with its traceback and the input.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from fuzz import bundles, formats, pixels, texts, weights
from fuzz.target import Found, Target, fuzz
from nat2deploy.files import write_json
from nat2deploy.run.config import load_pipeline
from nat2deploy.run.pipeline import run_pipeline
from torture.tiny import write_pipeline


def all_targets(folder: Path, run: Path) -> list[Target]:
    """Every target, fed from ``folder``; whole files are those of a finished pipeline, ``run``."""
    return [
        *texts.targets(),
        *formats.targets(folder, run),
        *bundles.targets(folder, run),
        *pixels.targets(),
        *weights.targets(folder, run),
    ]


def _small_run(folder: Path) -> Path:
    """A pipeline that was brought to its end in no time."""
    config = load_pipeline(write_pipeline(folder / "pipeline"))
    search = config.search.model_copy(update={"rounds": 1, "adapt_epochs": 0.1})
    train = config.train.model_copy(update={"epochs": 1.0})
    run_pipeline(config.model_copy(update={"search": search, "train": train}), folder / "run")
    return folder / "run"


def main() -> int:
    """Fuzz; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="words in targets' names")
    parser.add_argument("--run", type=Path, help="a finished pipeline; one is made when not given")
    parser.add_argument("--json", type=Path, help="write the counts here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name) / "fed"
        folder.mkdir()
        targets = all_targets(folder, arguments.run or _small_run(Path(name)))
        if arguments.only:
            targets = [t for t in targets if any(word in t.name for word in arguments.only)]
        shares = sum(target.share for target in targets)
        for target in targets:
            one = fuzz(target, math.ceil(arguments.count * target.share / shares), arguments.seed)
            found.append(one)
            _print(one)
    inputs, faults = sum(one.inputs for one in found), sum(sum(one.faults.values()) for one in found)
    print(f"{inputs:,} inputs to {len(found)} parsers, {faults} faults")
    if arguments.json is not None:
        write_json(arguments.json, {"seed": arguments.seed, "targets": [asdict(one) for one in found]})
    return 1 if faults else 0


def _print(found: Found) -> None:
    rate = found.inputs / max(found.seconds, 1e-9)
    print(
        f"{found.name}: {found.inputs:,} inputs, {found.accepted:,} taken, {found.refused:,} refused, "
        f"{sum(found.faults.values())} faults ({rate:,.0f}/s)",
        flush=True,
    )
    for fault, count in found.faults.items():
        trace, given = found.firsts[fault]
        print(f"  {count} times {fault}\n{trace}  input: {given[:600]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
