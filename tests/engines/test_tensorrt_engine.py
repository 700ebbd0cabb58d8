"""The engine of plans, by a package that computes in this process; the real ones need a GPU to load a plan."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nat2deploy.engines import tensorrt
from nat2deploy.engines.tensorrt import TensorRtEngine
from nat2deploy.errors import UserError
from nat2deploy.target import Target

PLAN = b"ftrt" + bytes(32)
ROW = (3, 4, 4)


DataType = Enum("DataType", ["FLOAT", "HALF"])


class Context:
    """Computes each image's largest and smallest value; its plan takes one to eight of them."""

    def __init__(self, fixed):
        self.fixed, self.shape, self.addresses = fixed, None, {}

    def set_input_shape(self, name, shape):
        assert name == "input" and isinstance(shape, tuple)
        if not (shape[0] == self.fixed if self.fixed else 1 <= shape[0] <= 8):
            return False
        self.shape = shape
        return True

    def get_tensor_shape(self, name):
        return (-1 if self.shape is None else self.shape[0], 2)

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        assert self.shape is not None and stream_handle == 7
        count = self.shape[0]
        given = (ctypes.c_float * (count * 48)).from_address(self.addresses["input"])
        found = (ctypes.c_float * (count * 2)).from_address(self.addresses["output"])
        rows = np.ctypeslib.as_array(given).reshape(count, -1)
        np.ctypeslib.as_array(found)[:] = np.stack([rows.max(1), rows.min(1)], axis=1).ravel()
        return True


class CudaEngine:
    num_io_tensors = 2

    def __init__(self, fixed):
        self.fixed = fixed

    def get_tensor_name(self, index):
        return ("input", "output")[index]

    def get_tensor_mode(self, name):
        return name.upper()

    def get_tensor_dtype(self, name):
        return DataType.FLOAT

    def get_tensor_shape(self, name):
        return (self.fixed or -1, *(ROW if name == "input" else (2,)))

    def create_execution_context(self):
        return Context(self.fixed)


@pytest.fixture
def engine_of(monkeypatch):
    """An engine of a plan for one batch, or with None for one to eight."""

    def make(fixed, batch):
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: CudaEngine(fixed))
        package = SimpleNamespace(
            __version__="11.4",
            Runtime=lambda log: runtime,
            TensorIOMode=SimpleNamespace(INPUT="INPUT"),
            DataType=DataType,
        )
        log = SimpleNamespace(errors=[], reason=lambda: "it gives no reason")
        monkeypatch.setattr(tensorrt, "open_package", lambda backend: (package, log))
        monkeypatch.setattr(tensorrt, "device_of", lambda target: torch.device("cpu"))
        monkeypatch.setattr(tensorrt, "replayed", lambda device, launch, capturable: launch)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=7))
        return TensorRtEngine(PLAN, Target(device="cuda", backend="tensorrt", batch=batch))

    return make


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *ROW), dtype=np.float32)


def expected(given):
    rows = given.reshape(len(given), -1)
    return np.stack([rows.max(axis=1), rows.min(axis=1)], axis=1)


@pytest.mark.parametrize("fixed", [4, None])
def test_a_plan_runs_the_targets_batch(engine_of, fixed):
    engine = engine_of(fixed, 4)
    assert (engine.input_shape, engine.any_batch) == ((4, *ROW), fixed is None)
    np.testing.assert_array_equal(engine.run(images(4)), expected(images(4)))
    assert engine.prepare(images(4))() is None


def test_a_plan_of_a_range_runs_all_of_it_and_says_no_beyond(engine_of):
    engine = engine_of(None, 4)
    replay = engine.prepare(images(4))
    for count in (1, 8, 3):
        np.testing.assert_array_equal(engine.run(images(count, count)), expected(images(count, count)))
        replay()  # with the target's batch again
        assert engine._context.shape[0] == 4
    with pytest.raises(UserError, match="cannot run this network: it gives no reason"):
        engine.run(images(9))
