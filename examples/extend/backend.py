"""A backend: eager PyTorch in the channels-last layout, whose convolutions may be faster.

    export NAT2DEPLOY_PLUGINS=examples/extend/backend.py
    nat2deploy profile --backend torch-channels-last --out t.json

A package names the class instead, in its pyproject.toml:

    [project.entry-points."nat2deploy.backends"]
    torch-channels-last = "my_package.backend:ChannelsLastEngine"
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nat2deploy.engines.base import WHOLE, Array, Borders, Engine, Images, check_shape
from nat2deploy.engines.torch_eager import torch_threads
from nat2deploy.errors import UserError
from nat2deploy.plugins import register
from nat2deploy.target import Target


class ChannelsLastEngine(Engine):
    """Eager PyTorch on the CPU, channels last."""

    precisions = {"cpu": ("fp32",)}  # noqa: RUF012 - the base class says that it is the class's

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        target: Target,
        input_shape: tuple[int, ...],
        *,
        calibration: Images | None = None,  # of int8, which this backend does not run
        borders: Borders = WHOLE,  # of formats inside int8 and fp16 networks: here it is float32 everywhere
    ) -> ChannelsLastEngine:
        """Take a private copy of ``module``, its weights in the layout."""
        check_shape(target, input_shape)
        private = copy.deepcopy(module).to("cpu", torch.float32, memory_format=torch.channels_last)
        return cls(private.eval().requires_grad_(False), target, input_shape)

    def __init__(self, module: nn.Module, target: Target, input_shape: tuple[int, ...]) -> None:
        super().__init__(target, input_shape, any_batch=True)
        self._module = module

    def _run(self, images: Array) -> Array:
        with torch_threads(self.target.threads), torch.inference_mode():
            output = self._module(self._tensor(images.copy()))
        return np.ascontiguousarray(output.numpy(), dtype=np.float32)

    def _prepare(self, images: Array) -> Callable[[], None]:
        module, tensor = self._module, self._tensor(images)

        @torch.inference_mode()
        def call() -> None:
            module(tensor)

        return call

    def _tensor(self, images: Array) -> torch.Tensor:
        """Only images [B, C, H, W] have a layout; a classifier alone takes features [B, C]."""
        tensor = torch.from_numpy(images)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _save(self, path: Path) -> None:
        raise UserError("a torch-channels-last engine lives in one process only; save one of onnxruntime")


register("backend", "torch-channels-last", ChannelsLastEngine)
