"""Build a TensorRT engine of a bundle's ONNX model: `python build.py`, on the device or ahead of time.

A program of its own, which travels in bundles as build.py; nat2deploy builds with the same code. It needs
Python 3.9 and the package that the manifest names, `tensorrt` or `tensorrt_rtx`. An engine for this GPU goes
where run.py looks for it, outside the bundle, whose files stay as they are.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional

PACKAGES = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt-rtx-cu13")}
"""By backend: the module, and what pip calls it. TensorRT and TensorRT for RTX have one API."""
Batches = tuple[int, int, int]
"""The smallest batch, the one to be fastest at, and the largest."""


class BuildError(Exception):
    """What the package says to a model, to be put behind the model's name."""


class UnknownGpuError(BuildError):
    """A compute capability that the package does not compile for; a line by itself."""


def make_log(trt: Any) -> Any:
    """Return a logger that keeps errors for a message of ours, and drops the rest."""

    class Log(trt.ILogger):  # type: ignore[misc]  # a base of a module named at run time
        """Hands out the first error since it was last asked."""

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

    return Log()


def build(
    trt: Any,
    log: Any,
    model: bytes,
    *,
    batches: Batches,
    sm: Sequence[int] = (),
    timings: Optional[bytes] = None,  # noqa: UP045 - old Pythons run this
) -> tuple[bytes, bytes]:
    """Compile an ONNX model, strongly typed: number formats are those of its tensors.

    float32 is float32 throughout; TensorFloat-32 stays off.

    Args:
        trt: the module, TensorRT's or TensorRT for RTX's.
        log: of ``make_log``.
        model: bytes of an ONNX file; 8 bits as symmetric QDQ.
        batches: for a model whose batch is free, the optimisation profile; not looked at otherwise.
        sm: compute capabilities, such as 86 for 8.6, of the GPUs that the plan is for. Needs no GPU, and
            TensorRT for RTX. By default the plan is for the GPU of this machine; without one, TensorRT for
            RTX compiles for GPUs of 8.0 and later.
        timings: the timing cache of earlier builds on this GPU, which makes this one faster and alike; None
            for none.

    Returns:
        The plan, and the timing cache with what this build added (empty without ``timings``).

    Raises:
        BuildError: the package does not know such a GPU, or does not compile the model.
    """
    package = f"{trt.__name__.replace('_', '-')} {trt.__version__}"
    log.errors.clear()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model) or network.num_outputs == 0:
        told = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        reason = " ".join(told[0].split()) if told else log.reason()
        raise BuildError(f"does not load in {package}: {reason}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # Else TensorRT for RTX may allocate in the middle of a run, which no CUDA graph can hold.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    profile = builder.create_optimization_profile()
    free = [network.get_input(index) for index in range(network.num_inputs)]
    free = [tensor for tensor in free if len(tensor.shape) > 0 and tensor.shape[0] < 0]
    for tensor in free:
        rest = tuple(tensor.shape)[1:]
        if len(set(batches)) == 1:
            tensor.shape = (batches[0], *rest)
        else:
            profile.set_shape(tensor.name, *((batch, *rest) for batch in batches))
    if free and len(set(batches)) > 1:
        config.add_optimization_profile(profile)
    if sm:
        _build_for(trt, config, sm)
    elif hasattr(trt, "ComputeCapability") and sees_gpu():
        # Its default is portable, which leaves out Turing (7.5).
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    if timings is not None and not config.set_timing_cache(config.create_timing_cache(timings), False):
        # Timings of another device are refused, and a fresh cache is kept.
        config.set_timing_cache(config.create_timing_cache(b""), False)
    log.errors.clear()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"cannot be compiled by {package}: {log.reason()}")
    return bytes(plan), b"" if timings is None else bytes(config.get_timing_cache().serialize())


def sees_gpu() -> bool:
    """Whether NVIDIA's driver shows this process a GPU."""
    try:
        driver, count = (
            ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"),
            ctypes.c_int(),
        )
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def known_capabilities(trt: Any) -> dict[int, Any]:
    """Return the compute capabilities that a package compiles for without such a GPU, by number."""
    members = trt.ComputeCapability.__members__ if hasattr(trt, "ComputeCapability") else {}
    return {int(name[2:]): value for name, value in members.items() if name.startswith("SM")}


def values_of(trt: Any, sm: Sequence[int]) -> list[Any]:
    """Return the package's values for compute capabilities, each once.

    Raises:
        UnknownGpuError: it does not compile for others' GPUs, or does not know one.
    """
    known = known_capabilities(trt)
    if not known:
        raise UnknownGpuError(
            "sm: TensorRT compiles for the GPU of this machine only; TensorRT for RTX for others"
        )
    unknown = [number for number in sm if number not in known]
    if unknown:
        every = ", ".join(str(number) for number in sorted(known))
        raise UnknownGpuError(
            f"sm: TensorRT for RTX {trt.__version__} has no {unknown[0]}; choose from {every}"
        )
    return [known[number] for number in dict.fromkeys(sm)]


def _build_for(trt: Any, config: Any, sm: Sequence[int]) -> None:
    values = values_of(trt, sm)
    config.num_compute_capabilities = len(values)
    for index, value in enumerate(values):
        config.set_compute_capability(value, index)


def cache_folder() -> Path:
    """Return where engines built on this device are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "nat2deploy" / "engines"


def plan_path(model: bytes, backend: str, version: str, batches: Sequence[int]) -> Path:
    """Return where the engine of an ONNX model is kept: for this device's GPU, and for ``batches``."""
    sizes = "-".join(str(int(batch)) for batch in batches)
    return cache_folder() / f"{hashlib.sha256(model).hexdigest()[:32]}-{backend}-{version}-{sizes}.plan"


def main(arguments: Optional[list[str]] = None) -> int:  # noqa: UP045
    """Run the command line; 2 is bad input or a missing package."""
    words = argparse.ArgumentParser(prog="build.py", description="Build the engine of this bundle.")
    words.add_argument("--sm", metavar="LIST", help="for other GPUs, such as 86,89,120 (TensorRT for RTX)")
    words.add_argument("--out", type=Path, help="the engine's file, instead of the place run.py looks in")
    asked = words.parse_args(arguments)
    folder = Path(__file__).resolve().parent
    try:
        engine = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        backend, (smallest, best, largest) = engine["target"]["backend"], engine["engine"]["batches"]
        name, wanted = engine["engine"]["onnx"], engine["files"][engine["engine"]["onnx"]]
        module, package = PACKAGES[backend]
        model = (folder / name).read_bytes()
    except (OSError, ValueError, LookupError, TypeError):
        _fail(f"{folder}: model or manifest missing or damaged, or no bundle for TensorRT; export it again")
    if hashlib.sha256(model).hexdigest() != wanted:
        _fail(f"{folder / name}: changed (hash differs); export it again")
    try:
        sm = [int(word) for word in asked.sm.split(",")] if asked.sm else []
    except ValueError:
        _fail(f"--sm {asked.sm}: write compute capabilities with commas, such as 86,89,120")
    if sm and asked.out is None:
        _fail("an engine for other GPUs is not for this device; say where it goes with --out")
    try:
        trt = importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        line = (str(error).splitlines() or ["no reason"])[0]
        _fail(f"{backend} cannot be imported ({line}); run `pip install {package}`")
    timings = cache_folder() / f"{backend}-{trt.__version__}.timings"
    keep = backend == "tensorrt" and not sm  # TensorRT for RTX compiles its kernels in the first run
    try:
        held = timings.read_bytes() if keep and timings.exists() else b""
        plan, held = build(
            trt,
            make_log(trt),
            model,
            batches=(smallest, best, largest),
            sm=sm,
            timings=held if keep else None,
        )
        out = asked.out or plan_path(model, backend, trt.__version__, (smallest, best, largest))
        _write(out, plan)
        if keep:
            _write(timings, held)
    except UnknownGpuError as error:
        _fail(str(error))
    except (BuildError, RuntimeError, TypeError) as error:  # the bindings, where there is no GPU to build for
        _fail(
            f"{name} {error if isinstance(error, BuildError) else 'cannot be compiled here: ' + str(error)}"
        )
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}; choose another place with --out")
    here = "the GPU of this machine" if sees_gpu() else "GPUs of 8.0 and later, as no GPU is seen here"
    print(f"{out}: {len(plan)} bytes, {backend} {trt.__version__}, for {asked.sm or here}")
    return 0


def _write(path: Path, data: bytes) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _fail(message: str) -> NoReturn:
    print(f"build.py: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
