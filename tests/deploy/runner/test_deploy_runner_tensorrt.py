"""The runner's way to a GPU, by a driver and a package that compute in this process, as strict as the real ones."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nat2deploy.deploy.runner import tensorrt
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.deploy.runner.session import open_session
from nat2deploy.engines import tensorrt_build

INVALID_DEVICE, INVALID_CONTEXT = 101, 201
SHAPE = (2, 3, 4, 4)


class Driver:
    """Of CUDA: two GPUs, of compute capability 8.6 and 8.9; memory is the host's."""

    def __init__(self) -> None:
        self.current = threading.local()
        self.held: list[Any] = []

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0 if index < 2 else INVALID_DEVICE

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 1000 + device.value
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        self.current.context = context.value
        return 0

    def cuStreamCreate(self, stream: Any, flags: int) -> int:
        stream._obj.value = 77
        return self._here()

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:
        number._obj.value = {75: 8, 76: 6 + 3 * device.value}[attribute]
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        memory = ctypes.create_string_buffer(size.value)
        self.held.append(memory)
        address._obj.value = ctypes.addressof(memory)
        return self._here()

    def cuMemcpyHtoDAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        ctypes.memmove(to.value, source.value, size.value)
        return self._here()

    cuMemcpyDtoHAsync_v2 = cuMemcpyHtoDAsync_v2

    def cuStreamSynchronize(self, stream: Any) -> int:
        assert stream.value == 77
        return self._here()

    def _here(self) -> int:
        return 0 if getattr(self.current, "context", None) else INVALID_CONTEXT


class Context:
    """Computes each image's largest and smallest value."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= SHAPE[0]

    def execute_async_v3(self, stream_handle: int) -> bool:
        size = int(np.prod(self.shape))
        given = np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses["input"]))
        found = np.ctypeslib.as_array(
            (ctypes.c_float * (2 * self.shape[0])).from_address(self.addresses["output"])
        )
        rows = given.reshape(self.shape[0], -1)
        found[:] = np.stack([rows.max(axis=1), rows.min(axis=1)], axis=1).ravel()
        return stream_handle == 77


class Log:
    """As the packages' ILogger."""

    INTERNAL_ERROR, ERROR = "INTERNAL_ERROR", "ERROR"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Driver:
    one = Driver()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tensorrt, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": lambda name: one}))
    engine = SimpleNamespace(create_execution_context=Context)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan != b"broken" else None)
    package = SimpleNamespace(__version__="11.4", ILogger=Log, Runtime=lambda log: runtime)
    monkeypatch.setattr(tensorrt, "load_package", lambda name, pip: package)
    return one


def manifest(capabilities: tuple[int, ...] = (86,)) -> dict[str, Any]:
    plan = {"file": "model.plan", "compute_capabilities": list(capabilities)}
    return {
        "model": "model.onnx",
        "engine": {"recipe": "build.py", "plans": [plan], "onnx": "model.onnx", "batches": [1, 2, 2]},
        "target": {"backend": "tensorrt", "device": "cuda:1", "precision": "fp32"},
        "input": {"name": "input", "shape": list(SHAPE)},
        "output": {"name": "output", "labels": ["a", "b"]},
    }


def read(name: str) -> bytes:
    if name == "build.py":
        return Path(tensorrt_build.__file__).read_bytes()
    return name.encode()


def images(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


def expected(given: Any) -> Any:
    rows = given.reshape(len(given), -1)
    return np.stack([rows.max(axis=1), rows.min(axis=1)], axis=1)


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_it_runs_in_threads_that_did_not_open_it(driver: Driver, workers: ThreadPoolExecutor) -> None:
    """As a server's do: a current context is each thread's own."""
    run = open_session(manifest(), read, 1)
    for seed in range(3):
        given = images(seed)
        np.testing.assert_array_equal(run(given), expected(given))
        np.testing.assert_array_equal(workers.submit(run, given[:1]).result(), expected(given[:1]))


def test_the_first_gpu_is_taken_or_the_one_asked_for(driver: Driver) -> None:
    for index, context in ((None, 1000), (0, 1000), (1, 1001)):
        capability = 89 if index else 86
        open_session(manifest((capability,)), read, 1, device_id=index)(images(0))
        assert driver.current.context == context
    with pytest.raises(BadInput, match=r"no engine for GPUs of compute capability 8\.9; run `python build"):
        open_session(manifest((86,)), read, 1, device_id=1)
    with pytest.raises(BadInput, match="cannot use GPU 2: the driver shows 2, counted from 0"):
        open_session(manifest(), read, 1, device_id=2)


def test_a_batch_that_the_engine_does_not_take_is_refused(driver: Driver) -> None:
    run = open_session(manifest(), read, 1)
    with pytest.raises(BadInput, match="takes no batch of 3: it gives no reason"):
        run(np.zeros((3, *SHAPE[1:]), np.float32))


def test_an_engine_built_for_other_batches_is_not_taken(driver: Driver, tmp_path: Path) -> None:
    """The same file of a free batch, once in a bundle for batches of 1 and once in one for 1 to 2."""
    for_ones = tensorrt_build.plan_path(b"model.onnx", "tensorrt", "11.4", (1, 1, 1))
    assert for_ones.is_relative_to(tmp_path)
    for_ones.parent.mkdir(parents=True)
    for_ones.write_bytes(b"broken")
    np.testing.assert_array_equal(open_session(manifest(), read, 1)(images(0)), expected(images(0)))
    tensorrt_build.plan_path(b"model.onnx", "tensorrt", "11.4", (1, 2, 2)).write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"has an engine that tensorrt 11\.4 does not load"):
        open_session(manifest(), read, 1)
