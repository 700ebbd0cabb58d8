"""Which cores a target's threads run on, the same for all engines of a process."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path

_BUSY_WINDOW_S = 0.05
_CPU_FOLDER = Path("/sys/devices/system/cpu")
_STAT = Path("/proc/stat")
# A control group's, of version 2 and of version 1, which says so where there is none by -1.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_QUOTA_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_PERIOD_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def available_cores() -> int:
    """Return how many cores this process may use: by affinity, and by a container's CPU quota."""
    cores = len(allowed_cores()) or os.cpu_count() or 1
    quota, _, period = (_read(_QUOTA) or f"{_read(_QUOTA_V1)} {_read(_PERIOD_V1)}").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        cores = min(cores, max(int(quota) // int(period), 1))
    return cores


@lru_cache(maxsize=1)
def allowed_cores() -> frozenset[int]:
    """Return the cores that this process was given, empty where the system cannot pin threads.

    Asked once, because pinning for a measurement narrows the answer of the system.
    """
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


@lru_cache(maxsize=64)
def cores_for(threads: int) -> tuple[int, ...]:
    """Return one core a thread, the calling thread's first; empty where they cannot be pinned.

    The fastest kind of core comes first (``cpu_capacity``, on big.LITTLE), then one thread a physical core,
    then the least busy. The answer stays the same in a process: engines bind their worker threads to it when
    they are compiled, and all engines that are compared must run on the same cores.
    """
    allowed = allowed_cores()
    if len(allowed) < threads:
        return ()
    return rank_cores(allowed)[:threads]


def rank_cores(allowed: frozenset[int]) -> tuple[int, ...]:
    """Return the allowed cores, the best to measure on first."""
    busy = _busy(_BUSY_WINDOW_S)

    def rank(core: int) -> tuple[int, int, float, int]:
        folder = _CPU_FOLDER / f"cpu{core}"
        capacity = int(_read(folder / "cpu_capacity") or 0)
        siblings = _parse(_read(folder / "topology" / "thread_siblings_list")) & allowed
        behind = sum(other < core for other in siblings)
        return -capacity, behind, round(busy.get(core, 0.0), 1), core

    return tuple(sorted(allowed, key=rank))


def _busy(window_s: float) -> dict[int, float]:
    """Return each core's share of time not idle, over a short window."""
    before = _ticks()
    if not before:
        return {}
    time.sleep(window_s)
    shares = {}
    for core, (idle, total) in _ticks().items():
        idle_before, total_before = before.get(core, (0, 0))
        passed = total - total_before
        shares[core] = 1 - (idle - idle_before) / passed if passed > 0 else 0.0
    return shares


def _ticks() -> dict[int, tuple[int, int]]:
    """Return idle and total ticks of each core (proc(5): idle and iowait are the fourth and fifth)."""
    found = {}
    for line in _read(_STAT).splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and len(fields) >= 5:
            ticks = [int(value) for value in fields[:8]]
            found[int(name[3:])] = (ticks[3] + ticks[4], sum(ticks))
    return found


def _parse(text: str) -> set[int]:
    """Parse a kernel CPU list such as ``0,4-6``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
