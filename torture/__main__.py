"""Torture a small pipeline, and compare each result with that of an undisturbed run.

    python -m torture --kills 30 --json torture.json

Exits with 1 when something was not as it must be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from nat2deploy.files import write_json
from torture.commands import import_everything, run
from torture.compute import clock_jumps, not_a_number, out_of_memory
from torture.device import vanishing_device
from torture.kills import killed
from torture.results import half_written, leftovers, result_of
from torture.scenario import Bench, Found
from torture.storage import full_disk, read_only
from torture.tiny import write_pipeline


def main() -> int:
    """Run the scenarios that were asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what was found here")
    scenarios = _scenarios(0)
    parser.add_argument("--only", nargs="+", choices=scenarios, default=list(scenarios))
    arguments = parser.parse_args()
    scenarios = _scenarios(arguments.kills)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        bench = _bench(Path(name), arguments.seed)
        print(f"undisturbed: {bench.whole_s:.0f} s, {len(bench.undisturbed)} files of the result", flush=True)
        found = []
        for scenario in arguments.only:
            began = time.monotonic()
            one = scenarios[scenario](bench)
            found.append(one)
            _print(one, time.monotonic() - began)
    problems = sum(len(one.problems) for one in found)
    faults, runs = sum(one.faults for one in found), sum(one.runs for one in found)
    print(f"{faults} faults, {runs} runs to their end, {problems} problems")
    if arguments.json is not None:
        write_json(arguments.json, {"seed": arguments.seed, "scenarios": [asdict(one) for one in found]})
    return 1 if problems else 0


def _scenarios(kills: int) -> dict[str, Callable[[Bench], Found]]:
    return {
        "kill": lambda bench: killed(bench, kills),
        "full": full_disk,
        "read-only": read_only,
        "memory": out_of_memory,
        "nan": not_a_number,
        "clock": clock_jumps,
        "device": vanishing_device,
    }


def _bench(folder: Path, seed: int) -> Bench:
    """Write the pipeline, and run it twice with nothing happening: it must give the same."""
    import_everything()
    config = write_pipeline(folder / "pipeline")
    results = []
    for name in ("undisturbed", "again"):
        began = time.monotonic()
        out = folder / name
        ended = run("run", str(config), "--out", str(out))
        whole_s = time.monotonic() - began
        faults = [*half_written(out), *leftovers(out, finished=True)] if out.exists() else []
        if ended.code != 0 or faults:
            raise SystemExit(f"the undisturbed run failed: {ended.error} {'; '.join(faults)}")
        results.append(result_of(out))
    if results[0] != results[1]:
        raise SystemExit("two undisturbed runs differ")
    return Bench(folder, config, results[0], whole_s, seed)


def _print(found: Found, seconds: float) -> None:
    if found.skipped:
        print(f"{found.name}: skipped: {found.skipped}", flush=True)
        return
    verdict = "as it must be" if not found.problems else f"{len(found.problems)} PROBLEMS"
    print(
        f"{found.name}: {found.faults} faults, {found.runs} runs to their end, {verdict} ({seconds:.0f} s)",
        flush=True,
    )
    for line in [*found.notes, *found.problems]:
        print(f"    {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
