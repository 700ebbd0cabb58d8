"""TensorRT's engines without PyTorch: memory and streams by the NVIDIA driver's own library."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .refusal import BadInput
from .session import load_package

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Run = Callable[[Floats], Floats]
    Read = Callable[[str], bytes]

# Device attributes of the CUDA driver API: major and minor number of the compute capability.
_MAJOR, _MINOR = 75, 76


class Gpu:
    """A GPU that the NVIDIA driver shows to this process, with one stream.

    Args:
        index: counted from 0, as CUDA counts.

    Attributes:
        capability: such as 86 for 8.6.
        stream: an address.

    Raises:
        BadInput: no driver or no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            self._driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        except OSError:
            raise BadInput("needs an NVIDIA GPU, and there is no driver for one here") from None
        self._call("cuInit", 0)
        count, device, stream = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self._context = ctypes.c_void_p()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if index >= count.value:
            raise BadInput(f"cannot use GPU {index}: the driver shows {count.value}, counted from 0")
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        self.stream = int(stream.value or 0)
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            number = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
            numbers.append(number.value)
        self.capability = 10 * numbers[0] + numbers[1]

    def enter(self) -> None:
        """Make this GPU the calling thread's; CUDA keeps it for each thread by itself."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes on the GPU, held as long as the process lives."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return int(address.value)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Start copying a contiguous array to the GPU."""
        self._copy(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), array
        )

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Copy into a contiguous array, and wait until all work is done."""
        self._copy(
            "cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address), array
        )
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def _copy(self, name: str, to: Any, source: Any, array: NDArray[Any]) -> None:
        self._call(name, to, source, ctypes.c_size_t(array.nbytes), ctypes.c_void_p(self.stream))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            raise BadInput(f"cannot use the GPU: the driver's {name} says {code}")


def open_tensorrt(manifest: dict[str, Any], read: Read, device_id: int = 0) -> Run:
    """Return what runs a batch on the GPU: a plan of the bundle for it, or what build.py has made here.

    Any thread may call it, but one at a time: all calls share one execution context.

    Args:
        manifest: of the bundle.
        read: as of ``session.open_session``.
        device_id: of the GPU, as CUDA counts.

    Raises:
        BadInput: no GPU, package or plan for it, or a plan that does not load.
    """
    spec = manifest.get("engine") or {}
    if not spec.get("recipe"):
        raise BadInput("is for TensorRT and has no recipe for its engine; export it again")
    recipe = ModuleType("recipe")
    exec(compile(read(str(spec["recipe"])), str(spec["recipe"]), "exec"), recipe.__dict__)
    backend = str(manifest["target"]["backend"])
    trt = load_package(*recipe.PACKAGES[backend])
    gpu = Gpu(device_id)
    fitting = [plan["file"] for plan in spec["plans"] if gpu.capability in plan["compute_capabilities"]]
    built: Path = recipe.plan_path(read(str(spec["onnx"])), backend, trt.__version__, spec["batches"])
    if built.is_file():
        plan = built.read_bytes()
    elif fitting:
        plan = read(str(fitting[0]))
    else:
        raise BadInput(
            f"has no engine for GPUs of compute capability {gpu.capability / 10:.1f}; run `python build.py`"
        )
    log = recipe.make_log(trt)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise BadInput(
            f"has an engine that {backend} {trt.__version__} does not load ({log.reason()}); run "
            "`python build.py`"
        )
    name, result = str(manifest["input"]["name"]), str(manifest["output"]["name"])
    most, classes = int(spec["batches"][2]), len(manifest["output"]["labels"])
    shape = [int(size) for size in manifest["input"]["shape"]]
    given, found = gpu.allocate(4 * most * int(np.prod(shape[1:]))), gpu.allocate(4 * most * classes)
    context.set_tensor_address(name, given)
    context.set_tensor_address(result, found)

    def run(images: Floats) -> Floats:
        gpu.enter()
        if not context.set_input_shape(name, images.shape):
            raise BadInput(f"takes no batch of {len(images)}: {log.reason()}")
        gpu.upload(given, np.ascontiguousarray(images, np.float32))
        if not context.execute_async_v3(gpu.stream):
            raise BadInput(f"does not run: {log.reason()}")
        logits = np.empty((len(images), classes), np.float32)
        gpu.download(found, logits)
        return logits

    run.__dict__["alive"] = (runtime, engine)  # the context does not keep them
    return run
