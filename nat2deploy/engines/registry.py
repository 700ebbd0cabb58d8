"""One front door to the backends: compile, load, and say which can be used here."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from nat2deploy.errors import UserError
from nat2deploy.target import Target

if TYPE_CHECKING:
    from torch import nn

    from nat2deploy.engines.base import Borders, Engine, Images
    from nat2deploy.engines.onnx_engine import OnnxEngine

# Everything heavy is imported inside the functions: listing the backends must not need them.


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend or device can be measured on here.

    ``version`` is that of the installed package, empty where there is none; ``reason`` says why not, or
    what it is for.
    """

    name: str
    available: bool
    version: str
    reason: str


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
        UserError: the module does not export, the batch is not the target's, or int8 without calibration.
    """
    if target.backend == "torch":
        from nat2deploy.engines.torch_eager import TorchEngine

        return TorchEngine(module, target, input_shape)
    from nat2deploy.engines.base import WHOLE

    return _onnx_engine(target).from_module(
        module, target, input_shape, calibration=calibration, borders=borders or WHOLE
    )


def load_engine(path: Path, target: Target) -> Engine:
    """Load what ``Engine.save`` wrote, or an ONNX file of any origin with one input and one output.

    Raises:
        UserError: missing, not ONNX, not made for this target, or a backend that keeps nothing on disk.
    """
    if target.backend == "torch":
        raise UserError(f"cannot load {path} with backend torch; load it with backend onnxruntime")
    return _onnx_engine(target).from_file(path, target)


def _onnx_engine(target: Target) -> type[OnnxEngine]:
    if target.backend == "openvino":
        try:
            from nat2deploy.engines.openvino import OpenVinoEngine
        except (ImportError, OSError) as error:
            reason = _missing("openvino", _version("openvino"), error)
            raise UserError(f"backend openvino cannot be used: {reason}") from error
        return OpenVinoEngine
    from nat2deploy.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine


def available_backends() -> list[BackendStatus]:
    """List the backends and devices that people look for, each with an honest word on its state here."""
    return [
        _importable("onnxruntime", "onnxruntime", "ONNX Runtime on the CPU, the default"),
        _importable("openvino", "openvino", "OpenVINO on the CPU: fp32, int8, and bf16 where the CPU has it"),
        _importable("torch", "torch", "eager PyTorch on the CPU, a baseline"),
        _unsupported("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")),
        _unsupported("tensorrt-rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")),
        BackendStatus("cuda", False, "", _cuda_reason()),
        _ssh(),
    ]


def _importable(name: str, module: str, purpose: str) -> BackendStatus:
    version = _version(name)
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return BackendStatus(name, False, version, _missing(name, version, error))
    return BackendStatus(name, True, version, purpose)


def _missing(name: str, version: str, error: Exception) -> str:
    if not version and name == "openvino":
        return "not installed; run `pip install 'nat2deploy[openvino]'`"
    return f"cannot be imported: {str(error).splitlines()[0]}"


def _unsupported(name: str, packages: tuple[str, ...]) -> BackendStatus:
    version = next((found for found in map(_version, packages) if found), "")
    state = "installed, but" if version else "not installed, and"
    return BackendStatus(name, False, version, f"{state} this version has no engine for it")


def _ssh() -> BackendStatus:
    if shutil.which("ssh") is None:
        return BackendStatus("ssh", False, "", "no `ssh` here; install OpenSSH's client")
    purpose = "profile --device ssh://user@host, for devices with Python 3.9+, numpy and onnxruntime"
    return BackendStatus("ssh", True, "", purpose)


def _cuda_reason() -> str:
    try:
        import torch
    except (ImportError, OSError):
        return "PyTorch cannot be imported to look for one; this version measures on the CPU only"
    if not torch.cuda.is_available():
        return "no CUDA device is visible; this version measures on the CPU only"
    return f"{torch.cuda.get_device_name(0)} is visible, but this version measures on the CPU only"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
