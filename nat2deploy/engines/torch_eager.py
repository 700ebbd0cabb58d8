"""Eager PyTorch on the CPU: the baseline that people know, and a reference for outputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nat2deploy.engines.base import Array, Engine, check_shape
from nat2deploy.errors import UserError
from nat2deploy.target import Target


class TorchEngine(Engine):
    """A private copy of a module, run eagerly in inference mode with the target's number of threads.

    Args:
        module: takes one float32 tensor of ``input_shape`` and returns one tensor.
        target: PyTorch's intra-operator threads are set to its count while the engine runs.
        input_shape: the input with its batch first.

    Raises:
        UserError: the shape has another batch than the target.
    """

    def __init__(self, module: nn.Module, target: Target, input_shape: tuple[int, ...]) -> None:
        check_shape(target, input_shape)
        super().__init__(target, input_shape, any_batch=True)
        self._module = copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)

    @property
    def run_batch(self) -> int:
        """Many, as far as memory goes: several times as fast for small networks."""
        fit = 5_000_000 // math.prod(self.input_shape[1:])
        return max(self.input_shape[0], min(50, fit))

    def _run(self, images: Array) -> Array:
        with torch_threads(self.target.threads), torch.inference_mode():
            output = self._module(torch.from_numpy(images.copy()))
        return np.ascontiguousarray(output.numpy(), dtype=np.float32)

    def _prepare(self, images: Array) -> Callable[[], None]:
        module, tensor, threads = self._module, torch.from_numpy(images), self.target.threads

        # Setting and restoring the count in every call would be timed, so only a wrong count is mended here;
        # measure.environment.pinned_threads sets it before and restores it after.
        @torch.inference_mode()
        def call() -> None:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            module(tensor)

        return call

    def _save(self, path: Path) -> None:
        raise UserError(
            "a torch engine lives in one process only; compile with backend onnxruntime to save it"
        )


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set PyTorch's number of intra-operator threads, and restore it."""
    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
