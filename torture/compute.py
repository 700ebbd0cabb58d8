"""Memory that runs out while an architecture is judged, training that becomes NaN, and a clock that jumps."""

from __future__ import annotations

from collections.abc import Sequence

from torture.commands import run
from torture.scenario import Bench, Found

_MEMORY = ("memory:1:0", "memory:7:1", "memory:12:0", "memory:16:1")
# Stage and step. An adaptation has 17: of its last one no later loss shows that the weights are broken.
_NAN = ("nan-loss:0:5", "nan-gradient:1:8", "nan-loss:4:3", "nan-gradient:4:16", "nan-gradient:5:16")


def out_of_memory(bench: Bench) -> Found:
    """Judging an architecture runs out of memory, a few times in one run."""
    return _refused(bench, "out of memory", _MEMORY)


def not_a_number(bench: Bench) -> Found:
    """The loss or the gradients of a training step become NaN, a few times in one run."""
    return _refused(bench, "NaN", _NAN)


def clock_jumps(bench: Bench) -> Found:
    """The time of day jumps by hours all the time."""
    found = Found("clock jumps")
    for seed in range(2):
        with bench.place(f"clock-{seed}") as out:
            ended = run(*bench.words(out), fault=f"clock:{bench.seed + seed}")
            found.faults += 1
            bench.check_end(ended, out, found)
    return found


def _refused(bench: Bench, name: str, faults: Sequence[str]) -> Found:
    found = Found(name)
    with bench.place(name.replace(" ", "-")) as out:
        for fault in faults:
            ended = run(*bench.words(out), fault=fault)
            if ended.code == 0:
                found.problems.append(f"{fault} did not strike")
                continue
            bench.check_refusal(ended, out, found)
        bench.go_on(out, found)
    return found
