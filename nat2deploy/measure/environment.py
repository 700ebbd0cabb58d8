"""The machine around a measurement: cores to run on, and whether something else keeps them busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nat2deploy.engines.cores import available_cores, cores_for
from nat2deploy.engines.torch_eager import torch_threads
from nat2deploy.errors import UserError
from nat2deploy.target import Target


@contextmanager
def pinned_threads(target: Target) -> Iterator[None]:
    """Hold the calling thread on the target's cores, and PyTorch on its thread count; restore both.

    ONNX Runtime computes on the calling thread, which gets the first core to itself, and on workers that each
    engine bound to the other cores when it was compiled. Left to the scheduler, two threads of one engine
    shared a core in a tenth of the visits and took twice as long there. OpenVINO computes on the calling
    thread too; its workers, one pool a process, run where the system puts them. PyTorch's workers inherit the
    calling thread's cores, so there it may use all of the target's. Where the system cannot pin, nothing is
    pinned.

    Raises:
        UserError: the target has more threads than this process may use cores.
    """
    available = available_cores()
    if target.threads > available:
        raise UserError(
            f"threads: the target ({target}) has {target.threads}, this process may use {available} "
            f"core{'s' if available > 1 else ''}; lower the target's threads"
        )
    cores = cores_for(target.threads)
    with ExitStack() as stack:
        stack.enter_context(torch_threads(target.threads))
        if cores:
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores if target.backend == "torch" else cores[:1])
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
