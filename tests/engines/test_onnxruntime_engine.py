import os
import time

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from nat2deploy.engines.cores import cores_for
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.onnxruntime import OnnxRuntimeEngine
from nat2deploy.errors import UserError
from nat2deploy.target import Target

SHAPE = (1, 3, 8, 8)


def conv():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3, padding=1).eval()


def images(shape=SHAPE):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def identity(inputs, outputs=1):
    """An ONNX model that adds up its inputs (name, type, shape) into so many outputs."""
    names = [name for name, _, _ in inputs]
    kind = inputs[0][1]
    nodes = [helper.make_node("Sum", names, [f"y{index}"]) for index in range(outputs)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(f"y{index}", kind, None) for index in range(outputs)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def test_run_equals_pytorch():
    engine = OnnxRuntimeEngine.from_module(conv(), Target(), SHAPE)
    with torch.inference_mode():
        expected = conv()(torch.from_numpy(images())).numpy()
    output = engine.run(images())
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_prepared_callable_runs_the_network_and_returns_nothing(monkeypatch):
    engine = OnnxRuntimeEngine.from_module(conv(), Target(), SHAPE)
    bindings = []
    session = engine._onnx.session
    original = session.io_binding
    monkeypatch.setattr(session, "io_binding", lambda: bindings.append(original()) or bindings[-1])
    call = engine.prepare(images())
    (output,) = bindings[0].get_outputs()
    output.update_inplace(np.zeros((1, 4, 8, 8), dtype=np.float32))
    assert call() is None
    np.testing.assert_array_equal(bindings[0].copy_outputs_to_cpu()[0], engine.run(images()))


def test_saved_engine_loads_with_the_same_bytes_and_numbers(tmp_path):
    engine = OnnxRuntimeEngine.from_module(conv(), Target(), SHAPE)
    engine.save(tmp_path / "net.onnx")
    again = OnnxRuntimeEngine.from_file(tmp_path / "net.onnx", Target())
    assert again.model == engine.model
    assert (again.input_shape, again.any_batch) == (SHAPE, False)
    assert np.array_equal(again.run(images()), engine.run(images()))


def test_a_free_batch_takes_the_targets_for_timing_and_any_to_run():
    engine = OnnxRuntimeEngine(to_onnx(conv(), SHAPE, dynamic_batch=True), Target(batch=2))
    assert (engine.input_shape, engine.any_batch) == ((2, 3, 8, 8), True)
    assert engine.run(images((5, 3, 8, 8))).shape == (5, 4, 8, 8)


def test_one_thread_computes_on_the_calling_thread_and_more_get_a_worker_each():
    count = lambda: len(os.listdir("/proc/self/task"))  # noqa: E731, PTH208
    before = count()
    one = OnnxRuntimeEngine.from_module(conv(), Target(), SHAPE)
    one.run(images())
    assert count() == before
    two = OnnxRuntimeEngine.from_module(conv(), Target(threads=2), SHAPE)
    assert count() == before + 1
    np.testing.assert_allclose(two.run(images()), one.run(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(len(cores_for(2)) < 2, reason="one core, or a system that cannot pin threads")
def test_workers_are_bound_to_the_cores_after_the_callers():
    known = set(os.listdir("/proc/self/task"))  # noqa: PTH208
    engine = OnnxRuntimeEngine.from_module(conv(), Target(threads=2), SHAPE)
    engine.run(images())
    (worker,) = set(os.listdir("/proc/self/task")) - known  # noqa: PTH208
    deadline = time.monotonic() + 2  # the worker binds itself when it first gets to run
    while os.sched_getaffinity(int(worker)) != {cores_for(2)[1]}:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (b"this is no model", "does not load"),
        (b"", "does not load"),
        (identity([("x", TensorProto.DOUBLE, [1, 3])]), "one float32 input"),
        (identity([("x", TensorProto.FLOAT, [1, 3]), ("z", TensorProto.FLOAT, [1, 3])]), "one float32 input"),
        (identity([("x", TensorProto.FLOAT, [1, "width"])]), "free size"),
        (identity([("x", TensorProto.FLOAT, [4, 3])]), "batch of 4"),
        (identity([("x", TensorProto.FLOAT, [1, 3])], outputs=2), "2 outputs"),
    ],
)
def test_foreign_models_are_one_clear_line(tmp_path, model, word):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model)
    with pytest.raises(UserError, match=word) as caught:
        OnnxRuntimeEngine.from_file(path, Target())
    assert "foreign.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_file(tmp_path):
    path = tmp_path / "half.onnx"
    whole = to_onnx(conv(), SHAPE)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.onnx does not load"):
        OnnxRuntimeEngine.from_file(path, Target())


def test_weights_in_a_second_file_are_refused(tmp_path):
    model = onnx.load_model_from_string(to_onnx(conv(), SHAPE))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    with pytest.raises(UserError, match=r"net\.onnx"):
        OnnxRuntimeEngine.from_file(tmp_path / "net.onnx", Target())


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no ONNX model"):
        OnnxRuntimeEngine.from_file(tmp_path / "none.onnx", Target())
    with pytest.raises(UserError, match="cannot read"):
        OnnxRuntimeEngine.from_file(tmp_path, Target())
