"""OpenVINO on the CPU: float32, bfloat16 and 8-bit kernels of Intel's oneDNN, on AMD's processors too."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import openvino as ov

from nat2deploy.engines.base import Array
from nat2deploy.engines.cores import allowed_cores
from nat2deploy.engines.ends import BYTE_TYPES, WHOLE_TYPES, Ends, check_ends
from nat2deploy.engines.onnx_engine import OnnxEngine
from nat2deploy.errors import UserError
from nat2deploy.precision import Precision
from nat2deploy.target import Target

IR_SUFFIX = ".xml"
_DEVICE = "CPU"
# Without a hint, float operators run in bfloat16 wherever the CPU can, those in int8 networks too.
_FLOAT: dict[Precision, ov.Type] = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32}

_HEADINGS = (
    "Exception from",
    "Check '",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "While validating",
    "Summary:",
)


class OpenVinoEngine(OnnxEngine):
    """An ONNX model, compiled by OpenVINO's CPU plugin for latency, on one stream.

    A synchronous request computes on the calling thread; with more threads OpenVINO's pool, one a process,
    helps it.

    Raises:
        UserError: as ``OnnxEngine``, a CPU without bfloat16 for a bf16 target, or a process that OpenVINO
            gives fewer threads than the target has.
    """

    @classmethod
    def from_file(cls, path: Path, target: Target) -> Self:
        """Compile the ONNX file ``path``, or OpenVINO's own .xml with the .bin beside it.

        Raises:
            UserError: missing, unreadable, or not one input and one output.
        """
        if path.suffix != IR_SUFFIX:
            return super().from_file(path, target)
        try:
            return cls(
                path.read_bytes(), target, weights=path.with_suffix(".bin").read_bytes(), source=str(path)
            )
        except OSError as error:
            raise UserError(f"cannot read the OpenVINO model {path}: {error.strerror}") from error

    def __init__(
        self, model: bytes, target: Target, *, weights: bytes | None = None, source: str = "the ONNX model"
    ) -> None:
        self._weights = weights
        super().__init__(model, target, source=source)

    def _save(self, path: Path) -> None:
        if self._weights is not None:
            raise UserError("an engine read from OpenVINO's own format is not saved as ONNX; copy its files")
        super()._save(path)

    def _load(self, model: bytes, target: Target, source: str) -> Ends:
        network = _read(model, self._weights, source)
        inputs = [(port.get_any_name(), _type_name(port), _sizes(port)) for port in network.inputs]
        types = BYTE_TYPES if target.precision == "int8" else WHOLE_TYPES
        ends = check_ends(inputs, len(network.outputs), batch=target.batch, types=types, source=source)
        if ends.any_batch:
            network.reshape(list(ends.input_shape))
        self._compiled = _compile(network, target, source)
        return replace(ends, any_batch=False)

    def _run(self, images: Array) -> Array:
        result = self._compiled.create_infer_request().infer([images], share_inputs=True)
        output: Array = result[0]
        return output if output.dtype == np.uint8 else np.ascontiguousarray(output, dtype=np.float32)

    def _prepare(self, images: Array) -> Callable[[], None]:
        # Buffers bound once, and views of the output instead of copies: 10.6 µs a call against 11.9.
        request = self._compiled.create_infer_request()
        output = self._run(images)
        request.set_input_tensor(ov.Tensor(images, shared_memory=True))
        request.set_output_tensor(ov.Tensor(output, shared_memory=True))
        request.buffers = (images, output)  # the tensors do not keep them alive
        infer = request.infer

        def call() -> None:
            infer(share_outputs=True)

        return call


def save_ir(model: bytes, target: Target, path: Path) -> None:
    """Write an ONNX model in OpenVINO's own format: ``path``, an .xml, and the weights in a .bin beside it.

    The batch is the target's; weights keep their number format. The same model gives the same bytes.

    Raises:
        UserError: the model does not load.
    """
    network = _read(model, None, "the exported network")
    shape = network.inputs[0].partial_shape
    if shape[0].is_dynamic:
        network.reshape([target.batch, *(axis.get_length() for axis in list(shape)[1:])])
    for index, node in enumerate(network.get_ordered_ops()):
        # Operators that the file had no name for are numbered over the whole process.
        if re.fullmatch(rf"{node.get_type_name()}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
    ov.save_model(network, path, compress_to_fp16=False)


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16."""
    return "BF16" in _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


def check_precision(precision: Precision) -> None:
    """Check that this CPU computes in a precision.

    Raises:
        UserError: bf16 where it does not.
    """
    if precision == "bf16" and not has_bf16():
        raise UserError("this CPU does not compute in bf16; choose fp32 or int8")


def _read(model: bytes, weights: bytes | None, source: str) -> Any:
    try:
        return _core().read_model(model) if weights is None else _core().read_model(model, weights)
    except Exception as error:  # the bindings raise RuntimeError with a page of text
        raise UserError(f"{source} does not load in OpenVINO {ov.__version__}: {_reason(error)}") from error


@lru_cache(maxsize=1)
def _core() -> Any:
    """OpenVINO's one entry point.

    It looks once which cores the process may use, and would keep to the first core alone where that happens
    on a thread that is pinned for a measurement.
    """
    pinned = os.sched_getaffinity(0) if allowed_cores() else None
    if pinned is not None:
        os.sched_setaffinity(0, allowed_cores())
    try:
        core = ov.Core()
        core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        return core
    finally:
        if pinned is not None:
            os.sched_setaffinity(0, pinned)


def _compile(network: Any, target: Target, source: str) -> Any:
    check_precision(target.precision)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": target.threads,
        "INFERENCE_PRECISION_HINT": _FLOAT[target.precision],
        "ENABLE_CPU_PINNING": False,  # the calling thread is on its core already
    }
    try:
        compiled = _core().compile_model(network, _DEVICE, settings)
    except Exception as error:
        raise UserError(f"OpenVINO {ov.__version__} cannot compile {source}: {_reason(error)}") from error
    threads = compiled.get_property("INFERENCE_NUM_THREADS")
    if threads != target.threads:
        raise UserError(
            f"OpenVINO uses {threads} thread{'s' if threads > 1 else ''} here, the target ({target}) has "
            f"{target.threads}; lower the target's threads, or start nat2deploy on more cores"
        )
    return compiled


def _type_name(port: Any) -> str:
    return str(port.element_type.to_dtype().name)


def _sizes(port: Any) -> list[int | None]:
    return [axis.get_length() if axis.is_static else None for axis in port.partial_shape]


def _reason(error: Exception) -> str:
    """The line that says something, behind places in the source code and headings."""
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip("- ")]
    return next(
        (line for line in lines if not line.startswith(_HEADINGS) and not line.endswith("with a message:")),
        lines[-1] if lines else "no reason",
    )
