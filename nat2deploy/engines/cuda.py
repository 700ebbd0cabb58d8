"""GPUs through PyTorch: a target's device, its errors in one line, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from nat2deploy.errors import UserError
from nat2deploy.gpu import check_visible
from nat2deploy.target import Target

# Libraries choose kernels, allocate workspaces and compile in the first runs, none of which can be captured.
_WARM_UPS = 3


def device_of(target: Target) -> torch.device:
    """Return PyTorch's device of a GPU target.

    Raises:
        UserError: PyTorch does not see it.
    """
    check_visible(target.gpu_index)
    return torch.device(target.device)


@contextmanager
def gpu_errors(target: Target) -> Iterator[None]:
    """Turn what a GPU cannot do into one line.

    Raises:
        UserError: not enough memory, or any other error of the GPU's libraries.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise too_little_memory(target) from error
    except RuntimeError as error:
        raise cannot_run(target, error) from error


def too_little_memory(target: Target) -> UserError:
    """Return the error of a GPU whose memory a network does not fit into."""
    return UserError(
        f"{target.device} has too little memory left for this network; lower the batch, or free it"
    )


def cannot_run(target: Target, error: Exception) -> UserError:
    """Return the error of a GPU's library, whose first line says why."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"the target ({target}) cannot run this network: {line}")


def replayed(
    device: torch.device,
    launch: Callable[[], object],
    *,
    capturable: Callable[[torch.cuda.Stream], bool] = lambda stream: True,
) -> Callable[[], None]:
    """Return what runs a GPU's work once and waits for its end.

    The work is captured into a CUDA graph, so that a run is one launch, whatever it holds. The callable takes
    the host's view: from before the launch to after the end. It is for the thread and the current stream that
    this function was called with.

    Args:
        device: the GPU.
        launch: starts the same work on the current stream each time, on memory that stays in place.
        capturable: asked once the work has run on a stream; where it says no, each run calls ``launch``.
    """
    with torch.cuda.device(device):
        current = torch.cuda.current_stream(device)
        # The default stream cannot be captured.
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                launch()
            side.synchronize()
            call = _captured(side, current, launch) if capturable(side) else _launched(side, launch)
    call()
    return call


def _captured(
    side: torch.cuda.Stream, current: torch.cuda.Stream, launch: Callable[[], object]
) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        launch()
    replay, wait = graph.replay, current.synchronize

    def call() -> None:
        replay()
        wait()

    call.__dict__["launch"] = launch  # keeps the memory that the graph works on
    return call


def _launched(side: torch.cuda.Stream, launch: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        with torch.cuda.stream(side):
            launch()
        side.synchronize()

    return call
