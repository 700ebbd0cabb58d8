"""The cores that a measurement runs on, and whether something else keeps them busy."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from nat2deploy.engines.cores import available_cores, cores_for
from nat2deploy.errors import UserError


@contextmanager
def pinned_cores(threads: int, *, all_cores: bool = False) -> Iterator[None]:
    """Hold the calling thread on the first of the cores for ``threads``, and restore it.

    The engine's workers were bound to the other cores when it was compiled. Left to the scheduler, two
    threads of one engine shared a core in a tenth of the visits and took twice as long there. Where the
    system cannot pin or denies it, nothing is pinned.

    Args:
        threads: that an engine computes with.
        all_cores: let the calling thread use all of those cores, because it hands them down to its workers;
            these get its former cores back, too.

    Raises:
        UserError: more threads than this process may use cores.
    """
    check_threads(threads)
    cores = cores_for(threads)
    if not cores:
        yield
        return
    former = os.sched_getaffinity(0)
    there = _threads() if all_cores else set()
    if not _pin(0, cores if all_cores else cores[:1]):
        yield
        return
    try:
        yield
    finally:
        _pin(0, former)
        for thread in (_threads() if all_cores else set()) - there:
            _unpin(thread, set(cores), former)


def check_threads(threads: int) -> None:
    """Check that there is a core for each thread.

    Raises:
        UserError: more threads than this process may use cores.
    """
    available = available_cores()
    if threads > available:
        raise UserError(
            f"threads: the target has {threads}, this process may use {available} "
            f"core{'s' if available > 1 else ''}; lower the target's threads"
        )


def _pin(thread: int, cores: Collection[int]) -> bool:
    """Hold a thread on cores, where the system lets it: a sandbox, or cores taken away since, may not."""
    try:
        os.sched_setaffinity(thread, cores)
    except OSError:
        return False
    return True


def _unpin(thread: int, inherited: set[int], former: Collection[int]) -> None:
    """Give a worker the former cores; one that an engine bound to a core of its own keeps it."""
    try:
        pinned = os.sched_getaffinity(thread)
    except OSError:  # it has ended
        return
    if pinned == inherited:
        _pin(thread, former)


def _threads() -> set[int]:
    """The threads of this process, none where the system does not list them."""
    try:
        return {int(task.name) for task in Path("/proc/self/task").iterdir()}
    except OSError:
        return set()


def load_warning() -> str | None:
    """Return a line of warning when the 1-minute load average says that the machine is busy, else None.

    Ask before a measurement: the measurement itself is load.
    """
    try:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # Windows, or a sandbox that hides it
        return None
    if load <= 0.25 * cores:
        return None
    return (
        f"the machine is busy: load average {load:.1f} on {cores} core{'s' if cores > 1 else ''}; "
        "stop other work, or expect wider intervals"
    )
