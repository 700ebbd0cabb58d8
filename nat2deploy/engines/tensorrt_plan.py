"""From an ONNX model to TensorRT's plan, an engine as bytes: for the GPU here, or for others."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from nat2deploy.engines.tensorrt_build import (
    Batches,
    BuildError,
    UnknownGpuError,
    build,
    make_log,
    values_of,
)
from nat2deploy.errors import UserError
from nat2deploy.files import write_atomic
from nat2deploy.target import Backend, Target

MODULES: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""TensorRT and TensorRT for RTX: one API in two packages."""
INSTALL: dict[Backend, str] = {
    "tensorrt": "pip install 'nat2deploy[tensorrt]'",
    "tensorrt-rtx": "pip install 'nat2deploy[tensorrt-rtx]'",
}

_TAG = slice(1, 4)  # in front of it stands a letter that tells the packages apart


def is_plan(data: bytes) -> bool:
    """Whether bytes are a plan of either package, not an ONNX file."""
    return data[_TAG] == b"trt" and data[:1].isalpha()


@lru_cache(maxsize=2)
def open_package(backend: Backend) -> tuple[Any, Any]:
    """Return a backend's Python module, and the one logger of this process that keeps its errors.

    Raises:
        UserError: not installed, or it does not find its libraries.
    """
    try:
        trt = importlib.import_module(MODULES[backend])
    except ModuleNotFoundError as error:
        raise UserError(f"backend {backend} is not installed; run `{INSTALL[backend]}`") from error
    except (ImportError, OSError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"backend {backend} cannot be imported: {line}; run `{INSTALL[backend]}`") from error
    return trt, make_log(trt)


def check_gpus(target: Target, sm: Sequence[int]) -> None:
    """Check that a target's package, which is here, compiles for GPUs of these compute capabilities.

    Raises:
        UserError: it does not, or is not installed.
    """
    try:
        values_of(open_package(target.backend)[0], sm)
    except UnknownGpuError as error:
        raise UserError(str(error)) from error


def build_plan(
    model: bytes,
    target: Target,
    *,
    sm: Sequence[int] = (),
    batches: Batches | None = None,
    source: str = "the ONNX model",
) -> bytes:
    """Compile an ONNX model as ``tensorrt_build.build`` does.

    Args:
        model: bytes of an ONNX file; 8 bits as symmetric QDQ (see ``quantise``).
        target: its backend compiles.
        sm: compute capabilities, such as 86 for 8.6, of the GPUs that the plan is for. Needs no GPU, and
            TensorRT for RTX. By default the plan is for the GPU of this machine; without one, TensorRT for
            RTX compiles for GPUs of 8.0 and later.
        batches: what a free batch may be: the smallest, the one to be fastest at, the largest; the target's
            by default.
        source: where the model came from, for errors.

    Raises:
        UserError: the package is missing, does not know such a GPU or finds none, or a model that it does
            not compile.
    """
    trt, log = open_package(target.backend)
    path = None if sm or target.backend != "tensorrt" else _timings_path(trt, target)
    try:
        plan, timings = build(
            trt,
            log,
            model,
            batches=batches or (target.batch, target.batch, target.batch),
            sm=sm,
            timings=None if path is None else _held_timings(path),
        )
    except UnknownGpuError as error:
        raise UserError(str(error)) from error
    except BuildError as error:
        raise UserError(f"{source} {error}") from error
    except (RuntimeError, TypeError) as error:  # the bindings, where there is no GPU or driver to build for
        raise UserError(
            f"{source} cannot be compiled by {target.backend} here: {_line(error, log)}"
        ) from error
    if path is not None:
        _keep_timings(path, timings)
    return plan


def plan_here(
    model: bytes, target: Target, *, batches: Batches, plans: Mapping[tuple[int, ...], bytes]
) -> bytes:
    """Return the plan for the target's GPU, which is here: one of a bundle's, else as its build.py makes it.

    Args:
        model: bytes of the bundle's ONNX file.
        target: its device, and what it compiles with.
        batches: as of ``build_plan``.
        plans: those that the bundle holds, by the compute capabilities that they are for.

    Raises:
        UserError: as ``build_plan``.
    """
    import torch

    major, minor = torch.cuda.get_device_capability(target.gpu_index)
    for capabilities, plan in plans.items():
        if 10 * major + minor in capabilities:
            return plan
    with torch.cuda.device(target.gpu_index):
        return build_plan(model, target, batches=batches, source="the exported network")


def open_runtime(trt: Any, log: Any, target: Target) -> Any:
    """Return what loads plans.

    Raises:
        UserError: no GPU or driver that the package can use.
    """
    try:
        return trt.Runtime(log)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{target.backend} {trt.__version__} does not start: {_line(error, log)}") from error


def _line(error: Exception, log: Any) -> str:
    """What the bindings raise says less than what the library has logged before."""
    return str(log.reason()) if log.errors else (str(error).splitlines() or [type(error).__name__])[0]


def _timings_path(trt: Any, target: Target) -> Path:
    """Where timings of kernels on this GPU are kept: builds are faster, and choose the same ones again."""
    import torch

    gpu = torch.cuda.get_device_name(target.gpu_index).replace(" ", "-").replace("/", "-")
    return Path(platformdirs.user_cache_dir("nat2deploy")) / f"tensorrt-{trt.__version__}-{gpu}.timings"


def _held_timings(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _keep_timings(path: Path, timings: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: _write(temporary, timings))
    except (OSError, UserError):
        return  # a cache only


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
