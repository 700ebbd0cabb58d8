"""One front door to the backends: compile and load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nat2deploy.engines.status import missing, version
from nat2deploy.errors import UserError
from nat2deploy.gpu import visible_gpus
from nat2deploy.plugins import load_plugin
from nat2deploy.target import Target

if TYPE_CHECKING:
    from torch import nn

    from nat2deploy.engines.base import Borders, Engine, Images
    from nat2deploy.engines.onnx_engine import OnnxEngine

# Everything heavy is imported inside the functions: a backend that is not used need not be there.


def compile_model(
    module: nn.Module,
    target: Target,
    input_shape: tuple[int, ...],
    *,
    calibration: Images | None = None,
    borders: Borders | None = None,
) -> Engine:
    """Compile a plain module for a target.

    Args:
        module: takes one float32 tensor of ``input_shape`` and returns one tensor; left as it was.
        target: chooses the backend, precision, threads and batch.
        input_shape: the input with the target's batch first.
        calibration: float32 [N, ...], network input that shows how large activations get, for int8. Where
            only latency is asked for, ``random_calibration`` is good enough.
        borders: which ends lie inside a network, when ``module`` is a part of one. An int8 part takes and
            gives uint8 there, as ``Engine.input_shape`` and ``input_type`` say.

    Raises:
        UserError: the module does not export, the batch is not the target's, int8 without calibration, or a
            backend or GPU that is not here.
    """
    from nat2deploy.engines.base import WHOLE

    if target.is_plugin:
        return _plugin(target).from_module(
            module, target, input_shape, calibration=calibration, borders=borders or WHOLE
        )
    if target.backend == "torch" and target.kind == "cuda":
        from nat2deploy.engines.torch_cuda import TorchCudaEngine

        return TorchCudaEngine(module, target, input_shape)
    if target.backend == "torch":
        from nat2deploy.engines.torch_eager import TorchEngine

        return TorchEngine(module, target, input_shape)
    return _onnx_engine(target).from_module(
        module, target, input_shape, calibration=calibration, borders=borders or WHOLE
    )


def compile_ahead(
    module: nn.Module,
    target: Target,
    input_shape: tuple[int, ...],
    *,
    sm: Sequence[int],
    calibration: Images | None = None,
) -> bytes:
    """Compile a plain module for GPUs that need not be here, with TensorRT for RTX.

    Args:
        module: as of ``compile_model``.
        target: of backend ``tensorrt-rtx``; its precision and batch count.
        input_shape: the input with the target's batch first.
        sm: the GPUs' compute capabilities, such as (86, 89) for 8.6 and 8.9.
        calibration: as of ``compile_model``.

    Returns:
        A plan: in a file, ``load_engine`` reads it on the GPU's machine.

    Raises:
        UserError: as ``compile_model``, another backend, or GPUs that the package does not know.
    """
    from nat2deploy.engines.base import check_shape
    from nat2deploy.engines.quantise import target_onnx
    from nat2deploy.engines.tensorrt_plan import build_plan

    if target.backend != "tensorrt-rtx" or not sm:
        raise UserError(
            f"the target ({target}) cannot be compiled ahead; choose tensorrt-rtx, and GPUs by `sm`"
        )
    check_shape(target, input_shape)
    model = target_onnx(module, target, input_shape, calibration)
    return build_plan(model, target, sm=sm, source="the exported network")


def engine_of_onnx(model: bytes, target: Target) -> Engine:
    """Compile the bytes of an ONNX file for a target.

    Raises:
        UserError: as ``load_engine``.
    """
    if target.backend == "torch" or target.is_plugin:
        raise UserError(f"backend {target.backend} runs no ONNX models; choose onnxruntime")
    return _onnx_engine(target)(model, target, source="the exported network")


def check_here(target: Target, sm: Sequence[int] = ()) -> None:
    """Check that this machine compiles for a target, as far as that is known without a model.

    Args:
        target: of a CPU, or of a GPU, which need not be here.
        sm: as of ``compile_ahead``; without, a GPU's engine is made where the GPU is.

    Raises:
        UserError: a package is not here, a CPU without the precision, or GPUs that the package does not know.
    """
    if target.backend == "openvino":
        _onnx_engine(target)
        from nat2deploy.engines.openvino import check_precision

        check_precision(target.precision)
    if sm:
        from nat2deploy.engines.tensorrt_plan import check_gpus

        check_gpus(target, sm)


def has_gpu(index: int = 0) -> bool:
    """Whether this process sees the GPU ``cuda:index``."""
    try:
        return index < len(visible_gpus())
    except UserError:
        return False


def absent(target: Target) -> str:
    """Say why a target's GPU engine cannot run here, for want of a GPU or package; empty where it can."""
    if target.kind == "cpu":
        return ""
    if not has_gpu(target.gpu_index):
        return f"{target.device} is not here"
    try:
        if target.backend in ("tensorrt", "tensorrt-rtx"):
            from nat2deploy.engines.tensorrt_plan import open_package

            open_package(target.backend)
        else:
            from nat2deploy.engines.onnxruntime_cuda import check_provider

            check_provider()
    except UserError as error:
        return str(error)
    return ""


def load_engine(path: Path, target: Target) -> Engine:
    """Load what ``Engine.save`` wrote, or an ONNX file of any origin with one input and one output.

    For TensorRT a plan of ``compile_ahead`` will do, too.

    Raises:
        UserError: missing, not ONNX, not made for this target, or a backend that keeps nothing on disk.
    """
    if target.backend == "torch" or target.is_plugin:
        raise UserError(f"cannot load {path} with backend {target.backend}; load it with backend onnxruntime")
    return _onnx_engine(target).from_file(path, target)


def _plugin(target: Target) -> type[Engine]:
    from nat2deploy.engines.base import Engine

    engine: type[Engine] = load_plugin("backend", target.backend, Engine)
    return engine


def _onnx_engine(target: Target) -> type[OnnxEngine]:
    if target.backend == "openvino":
        try:
            from nat2deploy.engines.openvino import OpenVinoEngine
        except (ImportError, OSError) as error:
            reason = missing("openvino", version("openvino"), error)
            raise UserError(f"backend openvino cannot be used: {reason}") from error
        return OpenVinoEngine
    if target.backend in ("tensorrt", "tensorrt-rtx"):
        from nat2deploy.engines.tensorrt import TensorRtEngine

        return TensorRtEngine
    if target.kind == "cuda":
        from nat2deploy.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

        return OnnxRuntimeCudaEngine
    from nat2deploy.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine
