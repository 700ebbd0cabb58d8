"""Give damaged input to every parser, a million times in all.

    python -m fuzz --count 1000000 --json fuzz.json
    python -m fuzz --guided --count 200000 --corpus corpus --json fuzz-guided.json

With ``--guided`` inputs that reach new code are kept and damaged further, which needs Atheris. Exits with 1
when an input led to anything but a result or a refusal in words; each different fault is shown once, with its
traceback and the input.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
import tempfile
from contextlib import nullcontext, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.instrument import instrumented
from nat2deploy.errors import UserError

if TYPE_CHECKING:
    from fuzz.target import Found


def main() -> int:
    """Fuzz; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="words in targets' names")
    parser.add_argument("--guided", action="store_true", help="by the code that inputs reach; needs Atheris")
    parser.add_argument(
        "--corpus", type=Path, help="keep inputs that reach new code here, and begin with them"
    )
    parser.add_argument("--run", type=Path, help="a finished pipeline; one is made when not given")
    parser.add_argument("--json", type=Path, help="write the counts here")
    arguments = parser.parse_args()
    if arguments.corpus is not None and not arguments.guided:
        parser.error("--corpus is of --guided")
    try:
        with instrumented() if arguments.guided else nullcontext():
            return _fuzz(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _fuzz(arguments: argparse.Namespace) -> int:
    with redirect_stderr(io.StringIO()):  # the name of each module that is instrumented
        import torch

        from fuzz.target import fuzz
        from fuzz.targets import all_targets, small_run
        from nat2deploy.files import write_json

        if arguments.guided:
            from fuzz.guided import guided
    torch.set_num_threads(1)
    found: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name) / "fed"
        folder.mkdir()
        targets = all_targets(folder, arguments.run or small_run(Path(name)))
        if arguments.only:
            names = ", ".join(target.name for target in targets)
            targets = [t for t in targets if any(word in t.name for word in arguments.only)]
            if not targets:
                raise UserError(
                    f"--only: no target has one of {arguments.only} in its name; there are {names}"
                )
        shares = sum(target.share for target in targets)
        for target in targets:
            count = math.ceil(arguments.count * target.share / shares)
            if arguments.guided:
                corpus = (arguments.corpus or Path(name) / "corpus") / _folder_of(target.name)
                found.append(guided(target, count, arguments.seed, corpus))
            else:
                found.append(fuzz(target, count, arguments.seed))
            _print(found[-1])
    inputs, faults = sum(one.inputs for one in found), sum(sum(one.faults.values()) for one in found)
    print(f"{inputs:,} inputs to {len(found)} parsers, {faults} faults")
    if arguments.json is not None:
        told = {"seed": arguments.seed, "guided": arguments.guided, "targets": [asdict(one) for one in found]}
        write_json(arguments.json, told)
    return 1 if faults else 0


def _folder_of(target: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", target.lower()).strip("-")


def _print(found: Found) -> None:
    rate = found.inputs / max(found.seconds, 1e-9)
    reached = "" if found.edges is None else f", {found.edges:,} branches reached by {found.corpus:,} of them"
    print(
        f"{found.name}: {found.inputs:,} inputs, {found.accepted:,} taken, {found.refused:,} refused, "
        f"{sum(found.faults.values())} faults ({rate:,.0f}/s){reached}",
        flush=True,
    )
    for fault, count in found.faults.items():
        trace, given = found.firsts[fault]
        print(f"  {count} times {fault}\n{trace}  input: {given[:600]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
