import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from test_onnxruntime_engine import conv, identity, images
from torch import nn

from nat2deploy.blocks import build_block
from nat2deploy.deploy.parity import agrees, compare, run_all
from nat2deploy.engines.base import Borders
from nat2deploy.engines.cores import cores_for
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.quantise import quantise
from nat2deploy.engines.registry import compile_model, load_engine
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target

ov = pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

from nat2deploy.engines.openvino import OpenVinoEngine, has_bf16  # noqa: E402

SHAPE = (1, 3, 8, 8)
FP32, INT8, BF16 = (Target(backend="openvino", precision=precision) for precision in ("fp32", "int8", "bf16"))
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute in bfloat16")


def kernels(engine):
    """Operator and number format of what the CPU plugin really runs, in order."""
    ran = []
    for node in engine._compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        ran.append(tuple(info[key].astype(str) for key in ("layerType", "runtimePrecision")))
    return ran


def convolutions(engine):
    return {precision for kind, precision in kernels(engine) if kind == "Convolution"}


def wide_net():
    """Sums of a thousand terms, which 8 bits of mantissa would not get right to four digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.Hardswish(), nn.Conv2d(128, 8, 1)).eval()


def relative_error(engine, module, x):
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    return float(np.abs(engine.run(x) - expected).max() / np.abs(expected).max())


def test_fp32_is_computed_in_fp32_on_cpus_with_bf16_too():
    net, x = wide_net(), images((1, 128, 8, 8))
    engine = compile_model(net, FP32, x.shape)
    assert isinstance(engine, OpenVinoEngine)
    assert convolutions(engine) == {"f32"}
    assert relative_error(engine, net, x) < 1e-5


@needs_bf16
def test_bf16_is_computed_in_bf16():
    net, x = wide_net(), images((1, 128, 8, 8))
    engine = compile_model(net, BF16, x.shape)
    assert convolutions(engine) == {"bf16"}
    assert 1e-4 < relative_error(engine, net, x) < 0.05
    assert engine.run(x).dtype == np.float32


def test_bf16_is_refused_where_the_cpu_has_none(monkeypatch):
    monkeypatch.setattr("nat2deploy.engines.openvino.has_bf16", lambda: False)
    with pytest.raises(UserError, match="does not compute in bf16"):
        compile_model(conv(), BF16, SHAPE)


def test_a_trained_networks_answers_survive_in_every_precision(trained):
    shape = (1, *trained.seen.shape[1:])
    expected = run_all(compile_model(trained.network, Target(backend="torch"), shape), trained.unseen)
    for target in (FP32, INT8, *([BF16] if has_bf16() else [])):
        engine = compile_model(trained.network, target, shape, calibration=trained.seen[:128])
        parity = compare(run_all(engine, trained.unseen), expected)
        assert agrees(parity, target.precision), target
        assert parity.top1_agreement > 0.95


def test_int8_convolutions_run_in_8_bits_and_agree_with_onnxruntime(trained):
    shape = (1, *trained.seen.shape[1:])
    both = [
        compile_model(trained.network, target, shape, calibration=trained.seen[:32])
        for target in (INT8, Target(precision="int8"))
    ]
    assert both[0].model == both[1].model
    assert convolutions(both[0]) <= {"u8", "i8"}
    parity = compare(*(run_all(engine, trained.unseen) for engine in both))
    assert parity.top1_agreement > 0.97


@pytest.mark.parametrize("kind", ["stem", "mbconv", "head", "classifier"])
def test_parts_of_an_int8_network_take_and_give_bytes_and_run_in_8_bits(kind):
    blocks = every_signature(load_space("nano").restrict(resolutions=(28,)), (10,))
    signature = [s for s in blocks if s.kind == kind][-1]
    shape = (1, *signature.input_shape)
    borders = Borders(input=kind != "stem", output=kind != "classifier")
    noise = np.random.default_rng(0).standard_normal((4, *shape[1:]), dtype=np.float32)
    engine = compile_model(build_block(signature).eval(), INT8, shape, calibration=noise, borders=borders)
    assert engine.input_type is (np.uint8 if borders.input else np.float32)
    assert engine.input_shape == shape
    output = engine.run(noise[:1] if kind == "stem" else np.full(shape, 9, np.uint8))
    assert output.dtype == (np.uint8 if borders.output else np.float32)
    computing = {p for name, p in kernels(engine) if name in ("Convolution", "FullyConnected")}
    assert computing
    assert computing <= {"u8", "i8"}


class Watched:
    """A compiled model that remembers its requests."""

    def __init__(self, compiled):
        self.compiled, self.requests = compiled, []

    def create_infer_request(self):
        self.requests.append(self.compiled.create_infer_request())
        return self.requests[-1]


def test_prepared_callable_runs_the_network_on_its_own_copy_and_returns_nothing():
    engine = compile_model(conv(), FP32, SHAPE)
    x = images()
    expected = engine.run(x)
    engine._compiled = Watched(engine._compiled)
    call = engine.prepare(x)
    x[:] = 0
    (request,) = (one for one in engine._compiled.requests if hasattr(one, "buffers"))
    held, output = request.buffers
    output[:] = 0
    assert call() is None
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(request.get_input_tensor().data, images())
    assert request.get_input_tensor().data.ctypes.data == held.ctypes.data  # bound, not copied


def test_results_are_fresh_arrays():
    engine = compile_model(conv(), FP32, SHAPE)
    first = engine.run(images())
    kept = first.copy()
    engine.run(np.zeros(SHAPE, np.float32))
    np.testing.assert_array_equal(first, kept)


def test_saved_engine_loads_with_the_same_bytes_and_numbers(tmp_path):
    engine = compile_model(conv(), FP32, SHAPE)
    engine.save(tmp_path / "net.onnx")
    again = load_engine(tmp_path / "net.onnx", FP32)
    assert isinstance(again, OpenVinoEngine)
    assert again.model == engine.model
    assert np.array_equal(again.run(images()), engine.run(images()))


def test_a_free_batch_becomes_the_targets():
    target = Target(backend="openvino", batch=2)
    engine = OpenVinoEngine(to_onnx(conv(), SHAPE, dynamic_batch=True), target)
    assert (engine.input_shape, engine.any_batch) == ((2, 3, 8, 8), False)
    assert engine.run(images((2, 3, 8, 8))).shape == (2, 4, 8, 8)


@pytest.mark.skipif(len(cores_for(2)) < 2, reason="one core, or a system that cannot pin threads")
def test_threads_are_the_targets_though_the_caller_is_pinned_to_one_core():
    """In a process of its own: OpenVINO looks at the process's cores once."""
    script = """
import os, sys
from torch import nn
from nat2deploy.engines.cores import allowed_cores, cores_for
from nat2deploy.engines.registry import compile_model
from nat2deploy.target import Target
os.sched_setaffinity(0, cores_for(2)[:1])
for threads in (2, 1):
    engine = compile_model(nn.Conv2d(3, 4, 3).eval(), Target(backend="openvino", threads=threads), (1, 3, 8, 8))
    print(engine._compiled.get_property("INFERENCE_NUM_THREADS"), len(os.sched_getaffinity(0)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "1", "1", "1"]


def test_more_threads_than_openvino_gives_are_refused():
    target = Target(backend="openvino", threads=min(2 * (os.cpu_count() or 1), 1024))
    with pytest.raises(UserError, match="lower the target's threads"):
        compile_model(conv(), target, SHAPE)


def large_pool():
    """A model that OpenVINO refuses: its pool is larger than what it pools."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 4, 4]), ("y", [1, 3, "h", "w"]))
    ]
    pool = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[7, 7])
    graph = helper.make_graph([pool], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (large_pool(), r"OpenVINO \S+: Kernel .* larger than the data shape"),
        (b"this is no model", "does not load in OpenVINO"),
        (b"", "does not load in OpenVINO"),
        (to_onnx(conv(), SHAPE)[:200], "does not load in OpenVINO"),
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
        load_engine(path, FP32)
    assert "foreign.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Exception from" not in str(caught.value)


def test_an_int8_part_is_no_whole_network(tmp_path):
    part = quantise(to_onnx(conv(), SHAPE), images((2, 3, 8, 8)), Borders(input=True))
    (tmp_path / "part.onnx").write_bytes(part)
    with pytest.raises(UserError, match=r"input: uint8.*one float32 input"):
        load_engine(tmp_path / "part.onnx", FP32)
