"""TensorRT and TensorRT for RTX on NVIDIA GPUs: compiled plans, replayed as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from nat2deploy.engines.base import Array
from nat2deploy.engines.cuda import device_of, gpu_errors, replayed
from nat2deploy.engines.ends import HALF_TYPES, Ends, check_ends
from nat2deploy.engines.onnx_engine import OnnxEngine
from nat2deploy.engines.tensorrt_plan import build_plan, is_plan, open_package, open_runtime
from nat2deploy.errors import UserError
from nat2deploy.target import Target

_INPUT_TYPES = {**HALF_TYPES, "int8": np.int8}


class TensorRtEngine(OnnxEngine):
    """A plan in an execution context; it is what the engine saves.

    A plan may take a range of batches: ``run`` takes any of them, ``prepare`` the target's.

    ``prepare`` binds input and output to buffers on the GPU and captures a run into a CUDA graph, so its
    callable's latency is that of the network as the host sees it, without copies.

    Args:
        model: the bytes of a plan, or of an ONNX file, which is compiled first.
        target: its device is ``cuda:N``, its backend ``tensorrt`` or ``tensorrt-rtx``.
        source: where the model came from, for errors.

    Raises:
        UserError: as ``OnnxEngine``, no such GPU, a missing package, or a plan for another GPU or version.
    """

    def __init__(self, model: bytes, target: Target, *, source: str = "the ONNX model") -> None:
        open_package(target.backend)
        with torch.cuda.device(device_of(target)):
            plan = model if is_plan(model) else build_plan(model, target, source=source)
            super().__init__(plan, target, source=source)

    def _load(self, model: bytes, target: Target, source: str) -> Ends:
        trt, log = open_package(target.backend)
        self._device = device_of(target)
        log.errors.clear()
        # The engine needs its runtime for as long as it lives.
        self._runtime = open_runtime(trt, log, target)
        self._engine = self._runtime.deserialize_cuda_engine(model)
        if self._engine is None:
            raise UserError(
                f"{source} does not load in {target.backend} {trt.__version__} on {target.device}, as a "
                f"plan of another version or GPU would not: {log.reason()}"
            )
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        inputs = [(name, _type_name(trt, engine, name), _sizes(engine, name)) for name in given]
        outputs = [name for name in names if name not in given]
        ends = check_ends(inputs, len(outputs), batch=target.batch, types=_INPUT_TYPES, source=source)
        self._input, self._output = given[0], outputs[0]
        self._input_type = getattr(torch, inputs[0][1])
        self._output_type = getattr(torch, _type_name(trt, engine, self._output))
        self._context = engine.create_execution_context()
        if self._context is None:
            raise UserError(f"{target.device} cannot hold {source}: {log.reason()}")
        return ends

    def _run(self, images: Array) -> Array:
        with gpu_errors(self.target), torch.cuda.device(self._device):
            given, result = self._buffers(images)
            self._launch(given, result)
            found = result.cpu()
        return (found if found.dtype == torch.int8 else found.float()).numpy()

    def _prepare(self, images: Array) -> Callable[[], None]:
        with gpu_errors(self.target), torch.cuda.device(self._device):
            given, result = self._buffers(images)
            return replayed(self._device, partial(self._launch, given, result), capturable=self._capturable)

    def _capturable(self, stream: torch.cuda.Stream) -> bool:
        # TensorRT for RTX knows after the first run, which compiles its kernels; TensorRT is never asked.
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream.cuda_stream))

    def _buffers(self, images: Array) -> tuple[torch.Tensor, torch.Tensor]:
        given = torch.from_numpy(np.array(images)).to(self._device, self._input_type)
        self._set_shape(given)
        shape = tuple(self._context.get_tensor_shape(self._output))
        return given, torch.empty(shape, dtype=self._output_type, device=self._device)

    def _set_shape(self, given: torch.Tensor) -> None:
        if not self._context.set_input_shape(self._input, tuple(given.shape)):
            raise RuntimeError(open_package(self.target.backend)[1].reason())

    def _launch(self, given: torch.Tensor, result: torch.Tensor) -> None:
        self._set_shape(given)  # another batch may have been run meanwhile
        self._context.set_tensor_address(self._input, given.data_ptr())
        self._context.set_tensor_address(self._output, result.data_ptr())
        stream = torch.cuda.current_stream(self._device)
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError(open_package(self.target.backend)[1].reason())


def _type_name(trt: Any, engine: Any, tensor: str) -> str:
    kind = engine.get_tensor_dtype(tensor)
    name: str = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}.get(kind, kind.name.lower())
    return name


def _sizes(engine: Any, tensor: str) -> list[int | None]:
    return [size if size >= 0 else None for size in engine.get_tensor_shape(tensor)]
