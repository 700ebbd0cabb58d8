"""Which backends and devices can be measured on here, and why the rest cannot."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from importlib import metadata

from nat2deploy.errors import UserError, first_line
from nat2deploy.gpu import visible_gpus
from nat2deploy.machine import onnxruntime_version
from nat2deploy.plugins import load_plugin, plugin_names, plugin_version
from nat2deploy.target import PRECISIONS, Backend

# Everything heavy is imported inside the functions: what is missing must be listed, too.


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


def available_backends() -> list[BackendStatus]:
    """List the backends and devices that people look for, each with an honest word on its state here."""
    try:
        gpus, blind = visible_gpus(), "PyTorch sees no GPU here"
    except UserError as error:
        gpus, blind = [], str(error)
    return [
        _importable("onnxruntime", "ONNX Runtime on the CPU, the default"),
        _importable("openvino", "OpenVINO on the CPU: fp32, int8, and bf16 where the CPU has it"),
        _importable("torch", "eager PyTorch on the CPU, a baseline"),
        _cuda(gpus, blind),
        _onnxruntime_cuda(gpus, blind),
        _tensorrt("tensorrt", "TensorRT", gpus, blind),
        _tensorrt("tensorrt-rtx", "TensorRT for RTX", gpus, blind),
        *_plugins(),
        _ssh(),
    ]


def missing(name: str, found: str, error: Exception) -> str:
    """Say why a package of version ``found`` (empty: none) cannot be imported, and how to get it."""
    if not found and name == "openvino":
        return "not installed; run `pip install 'nat2deploy[openvino]'`"
    return f"cannot be imported: {first_line(error)}"


def version(package: str) -> str:
    """Return an installed package's version, empty where there is none; of ONNX Runtime in whatever form."""
    if package == "onnxruntime":
        return onnxruntime_version()
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _importable(name: str, purpose: str) -> BackendStatus:
    found = version(name)
    try:
        importlib.import_module(name)
    except Exception as error:  # a package that does not go with another one raises what it likes
        return BackendStatus(name, False, found, missing(name, found, error))
    return BackendStatus(name, True, found, purpose)


def _cuda(gpus: list[str], blind: str) -> BackendStatus:
    if not gpus:
        return BackendStatus("cuda", False, "", blind)
    import torch

    listed = ", ".join(f"cuda:{index} is {name}" for index, name in enumerate(gpus))
    reason = f"{listed}; PyTorch on it as one CUDA graph: {_formats('torch')}"
    return BackendStatus("cuda", True, torch.version.cuda or "", reason)


def _onnxruntime_cuda(gpus: list[str], blind: str) -> BackendStatus:
    name, found = "onnxruntime cuda", version("onnxruntime-gpu")
    try:
        from nat2deploy.engines.onnxruntime_cuda import check_provider, check_start

        if gpus:
            check_start()
        else:
            check_provider()
    except (UserError, ImportError, OSError) as error:
        return BackendStatus(name, False, found, first_line(error))
    reason = f"ONNX Runtime on GPUs: {_formats('onnxruntime')}"
    return BackendStatus(name, bool(gpus), found, reason if gpus else f"installed, but {blind}")


def _tensorrt(name: Backend, title: str, gpus: list[str], blind: str) -> BackendStatus:
    from nat2deploy.engines.tensorrt_plan import open_package

    try:
        trt, _ = open_package(name)
    except UserError as error:
        return BackendStatus(name, False, "", str(error).removeprefix(f"backend {name} is "))
    reason = f"{title} on GPUs: {_formats(name)}"
    if not gpus:
        reason = f"installed, but {blind}" + ("; it compiles for others" if name == "tensorrt-rtx" else "")
    return BackendStatus(name, bool(gpus), trt.__version__, reason)


def _formats(backend: Backend) -> str:
    return ", ".join(PRECISIONS["cuda"][backend])


def _plugins() -> list[BackendStatus]:
    from nat2deploy.engines.base import Engine

    found = []
    for name in plugin_names("backend"):
        version = plugin_version("backend", name)
        try:
            engine = load_plugin("backend", name, Engine)
        except UserError as error:
            found.append(BackendStatus(name, False, version, str(error)))
            continue
        formats = "; ".join(f"{kind}: {', '.join(runs)}" for kind, runs in engine.precisions.items())
        words = (engine.__doc__ or "").strip().splitlines()
        found.append(
            BackendStatus(name, True, version, f"a plug-in ({formats}): {words[0] if words else name}")
        )
    return found


def _ssh() -> BackendStatus:
    if shutil.which("ssh") is None:
        return BackendStatus("ssh", False, "", "no `ssh` here; install OpenSSH's client")
    purpose = "profile --device ssh://user@host, for devices with Python 3.9+, numpy and onnxruntime"
    return BackendStatus("ssh", True, "", purpose)
