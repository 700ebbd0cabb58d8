"""The cores that a measurement runs on, and whether something else keeps them busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nat2deploy.engines.cores import available_cores, cores_for
from nat2deploy.errors import UserError


@contextmanager
def pinned_cores(threads: int, *, all_cores: bool = False) -> Iterator[None]:
    """Hold the calling thread on the first of the cores for ``threads``, and restore it.

    The engine's workers were bound to the other cores when it was compiled. Left to the scheduler, two
    threads of one engine shared a core in a tenth of the visits and took twice as long there. Where the
    system cannot pin, nothing is pinned.

    Args:
        threads: that an engine computes with.
        all_cores: let the calling thread use all of those cores, because it hands them down to its workers.

    Raises:
        UserError: more threads than this process may use cores.
    """
    available = available_cores()
    if threads > available:
        raise UserError(
            f"threads: the target has {threads}, this process may use {available} "
            f"core{'s' if available > 1 else ''}; lower the target's threads"
        )
    cores = cores_for(threads)
    with ExitStack() as stack:
        if cores:
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores if all_cores else cores[:1])
        yield


def load_warning() -> str | None:
    """Return a line of warning when the 1-minute load average says that the machine is busy, else None.

    Ask before a measurement: the measurement itself is load.
    """
    if not hasattr(os, "getloadavg"):
        return None
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= 0.25 * cores:
        return None
    return (
        f"the machine is busy: load average {load:.1f} on {cores} core{'s' if cores > 1 else ''}; "
        "stop other work, or expect wider intervals"
    )
