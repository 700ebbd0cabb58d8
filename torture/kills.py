"""SIGKILL at random moments."""

from __future__ import annotations

import random

from torture.commands import Command
from torture.results import half_written
from torture.scenario import Bench, Found


def killed(bench: Bench, kills: int) -> Found:
    """Kill runs at random moments, as often as is asked for, and go on with each until it is done.

    Every third run judges with two workers, which lose their parent then.
    """
    found = Found("SIGKILL")
    rng = random.Random(bench.seed)
    while found.faults < kills:
        workers = 2 if found.runs % 3 == 2 else 1
        with bench.place(f"killed-{found.runs}") as out:
            while True:
                command = Command.start(*bench.words(out, workers=workers), said=bench.folder / "said")
                if found.faults >= kills or command.wait(rng.uniform(0.05, 1.0) * bench.whole_s):
                    break
                command.kill()
                found.faults += 1
                if out.exists():
                    found.problems += half_written(out)
            bench.check_end(command.end(), out, found)
    return found
