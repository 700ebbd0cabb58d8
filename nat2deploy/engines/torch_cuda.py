"""PyTorch on an NVIDIA GPU: cuDNN's kernels, channels last, replayed as one CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nat2deploy.engines.base import Array, Engine, check_shape
from nat2deploy.engines.cuda import device_of, gpu_errors, replayed
from nat2deploy.errors import UserError
from nat2deploy.precision import Precision
from nat2deploy.target import Target

_TYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class TorchCudaEngine(Engine):
    """A private copy of a module on a GPU, in the target's number format.

    fp32 is float32 throughout: TensorFloat-32, which rounds factors to 10 bits, stays off. ``prepare``
    leaves the images on the GPU, so its callable's latency is that of the network as the host sees it,
    without copies.

    Args:
        module: takes one float tensor of ``input_shape`` and returns one tensor.
        target: its device is ``cuda:N``.
        input_shape: the input with its batch first.

    Raises:
        UserError: no such GPU, too little memory there, or a shape of another batch than the target's.
    """

    def __init__(self, module: nn.Module, target: Target, input_shape: tuple[int, ...]) -> None:
        check_shape(target, input_shape)
        super().__init__(target, input_shape, any_batch=True)
        self._device = device_of(target)
        self._type = _TYPES[target.precision]
        with gpu_errors(target):
            self._module = channels_last_copy(module).to(self._device, self._type)

    def _run(self, images: Array) -> Array:
        with gpu_errors(self.target), _cudnn(), torch.inference_mode():
            output = self._module(self._on_device(images))
            found: Array = output.to("cpu", torch.float32).contiguous().numpy()
        return found

    def _prepare(self, images: Array) -> Callable[[], None]:
        with gpu_errors(self.target), _cudnn(), torch.inference_mode():
            tensor = self._on_device(images)
            module = self._module
            return replayed(self._device, lambda: module(tensor))

    def _on_device(self, images: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(images)).to(self._device, self._type)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _save(self, path: Path) -> None:
        raise UserError(
            "a torch engine lives in one process only; compile with backend onnxruntime to save it"
        )


def channels_last_copy(module: nn.Module) -> nn.Module:
    """Return a copy for inference whose kernels are channels last, the form that tensor cores read."""
    ours: nn.Module = copy.deepcopy(module).eval().requires_grad_(False)
    ours.to(memory_format=torch.channels_last)
    return ours


@contextmanager
def _cudnn() -> Iterator[None]:
    """Let cuDNN try its kernels and keep the fastest for each shape, all in full precision."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        yield
