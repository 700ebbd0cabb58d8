"""From an ONNX model to TensorRT's plan, an engine as bytes: for the GPU here, or for others."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

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

    class Log(trt.ILogger):  # type: ignore[misc,name-defined]  # a base of a module named at run time
        """Keeps errors for our own message, and drops the rest."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by the library for each event."""
            if severity in (self.INTERNAL_ERROR, self.ERROR):
                self.errors.append(message)

        def reason(self) -> str:
            """Return the first error since the last call, in one line, and forget them."""
            first = next((line for text in self.errors for line in text.splitlines() if line.strip()), "")
            self.errors.clear()
            return first or "it gives no reason"

    return trt, Log()


def build_plan(
    model: bytes, target: Target, *, sm: Sequence[int] = (), source: str = "the ONNX model"
) -> bytes:
    """Compile an ONNX model, strongly typed: number formats are those of its tensors.

    float32 is float32 throughout; TensorFloat-32 stays off.

    Args:
        model: bytes of an ONNX file; 8 bits as symmetric QDQ (see ``quantise``).
        target: its backend compiles; its batch takes the place of a free one.
        sm: compute capabilities, such as 86 for 8.6, of the GPUs that the plan is for. Needs no GPU, and
            TensorRT for RTX. By default the plan is for the GPU of this machine.
        source: where the model came from, for errors.

    Raises:
        UserError: the package is missing or does not know such a GPU, or a model that it does not compile.
    """
    trt, log = open_package(target.backend)
    builder = trt.Builder(log)
    network = _parse(trt, log, builder, model, target, source)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if target.backend == "tensorrt-rtx":
        # Else the runtime may allocate in the middle of a run, which no CUDA graph can hold.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if sm:
        _build_for(trt, config, target.backend, sm)
    timings = None if sm or target.backend != "tensorrt" else _timings_path(trt, target)
    if timings is not None:
        _take_timings(config, timings)
    log.errors.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(f"{target.backend} {trt.__version__} cannot compile {source}: {log.reason()}")
    if timings is not None:
        _keep_timings(config, timings)
    return bytes(plan)


def _parse(trt: Any, log: Any, builder: Any, model: bytes, target: Target, source: str) -> Any:
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    log.errors.clear()
    if not parser.parse(model) or network.num_outputs == 0:
        told = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        reason = " ".join(told[0].split()) if told else log.reason()
        raise UserError(f"{source} does not load in {target.backend} {trt.__version__}: {reason}")
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if len(tensor.shape) > 0 and tensor.shape[0] < 0:
            tensor.shape = (target.batch, *tensor.shape[1:])
    return network


def _build_for(trt: Any, config: Any, backend: Backend, sm: Sequence[int]) -> None:
    if backend != "tensorrt-rtx":
        raise UserError(
            "backend tensorrt compiles for the GPU of this machine only; choose tensorrt-rtx for others"
        )
    known = {
        int(name.removeprefix("SM")): value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    unknown = [number for number in sm if number not in known]
    if unknown:
        every = ", ".join(str(number) for number in sorted(known))
        raise UserError(f"sm: TensorRT for RTX {trt.__version__} has no {unknown[0]}; choose from {every}")
    config.num_compute_capabilities = len(sm)
    for index, number in enumerate(sm):
        config.set_compute_capability(known[number], index)


def _timings_path(trt: Any, target: Target) -> Path:
    """Where timings of kernels on this GPU are kept: builds are faster, and choose the same ones again."""
    import torch

    gpu = torch.cuda.get_device_name(target.gpu_index).replace(" ", "-").replace("/", "-")
    return Path(platformdirs.user_cache_dir("nat2deploy")) / f"tensorrt-{trt.__version__}-{gpu}.timings"


def _take_timings(config: Any, path: Path) -> None:
    try:
        held = path.read_bytes()
    except OSError:
        held = b""
    # Timings of another device are refused, and a fresh cache is kept.
    if not config.set_timing_cache(config.create_timing_cache(held), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timings(config: Any, path: Path) -> None:
    held = bytes(config.get_timing_cache().serialize())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: _write(temporary, held))
    except (OSError, UserError):
        return  # a cache only


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
