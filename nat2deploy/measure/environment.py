"""The process around a measurement: a target's cores, and PyTorch's threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nat2deploy.engines.torch_eager import torch_threads
from nat2deploy.measure.pinning import pinned_cores
from nat2deploy.target import Target


@contextmanager
def pinned_threads(target: Target) -> Iterator[None]:
    """Hold the calling thread on the target's cores, and PyTorch's thread count; restore both.

    ONNX Runtime computes on the calling thread, which gets the first core to itself, and on workers that each
    engine bound to the other cores when it was compiled. OpenVINO computes on the calling thread too; its
    workers, one pool a process, run where the system puts them. PyTorch's workers inherit the calling
    thread's cores, so there it may use all of the target's; so it may with a plug-in's backend. With all
    others PyTorch, which exports what they compile, has one thread: workers made meanwhile would share the
    first core, and stay on it for the training that follows. A GPU gets its work from the calling thread.

    Raises:
        UserError: the target has more threads than this process may use cores.
    """
    inherits = hands_down_cores(target)
    with (
        pinned_cores(target.threads, all_cores=inherits),
        torch_threads(target.threads if inherits else 1),
    ):
        yield


def hands_down_cores(target: Target) -> bool:
    """Whether the target's backend computes on workers that inherit the calling thread's cores."""
    return target.backend == "torch" or target.is_plugin
