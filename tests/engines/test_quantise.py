import os
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from nat2deploy.blocks import SubNetwork, build_block, reset_seeded
from nat2deploy.deploy.parity import agrees, compare, run_all
from nat2deploy.engines.base import Borders
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.quantise import quantise, random_calibration, target_onnx
from nat2deploy.engines.quantiser import layers
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import every_signature, plan_network
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target

INT8 = Target(precision="int8")
SHAPE = (1, 3, 16, 16)
INSIDE = Borders(input=True, output=True)


def small_net():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    reset_seeded(net, 0)
    return net


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def kernels(model, folder):
    """The operators that ONNX Runtime really runs, in order."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def border_scale(model, tensor, op_type):
    """Scale and zero point that (de)quantise a named tensor, looked for behind a transpose too."""
    graph = onnx.load_model_from_string(model).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    names = {tensor}
    for node in (*graph.node, *reversed(graph.node)):
        if node.op_type in ("Transpose", "Flatten") and names & {*node.input, *node.output}:
            names |= {*node.input, *node.output}
    (node, *_) = (n for n in graph.node if n.op_type == op_type and names & {*n.input, *n.output})
    return tuple(float(constants[name]) for name in node.input[1:3])


def test_a_trained_networks_answers_survive(trained):
    exact = compile_model(trained.network, Target(), SHAPE)
    rounded = compile_model(trained.network, INT8, SHAPE, calibration=trained.seen[:128])
    expected, found = run_all(exact, trained.unseen), run_all(rounded, trained.unseen)
    right, right_int8 = ((one.argmax(1) == trained.targets).mean() for one in (expected, found))
    assert right > 0.7
    assert right_int8 > right - 0.03
    parity = compare(found, expected)
    assert parity.top1_agreement > 0.95
    assert agrees(parity, "int8")
    assert not agrees(parity, "fp32")


def test_wrong_calibration_is_noticed(trained):
    exact = compile_model(trained.network, Target(), SHAPE)
    clipped = compile_model(trained.network, INT8, SHAPE, calibration=0.02 * trained.seen[:64])
    assert not agrees(compare(run_all(clipped, trained.unseen), run_all(exact, trained.unseen)), "int8")


def test_all_convolutions_run_in_8_bits_with_a_scale_a_channel(trained, tmp_path):
    raw = target_onnx(trained.network, INT8, SHAPE, trained.seen[:16])
    onnx.checker.check_model(onnx.load_model_from_string(raw), full_check=True)
    float_ops = [n.op_type for n in onnx.load_model_from_string(to_onnx(trained.network, SHAPE)).graph.node]
    ran = kernels(raw, tmp_path)
    assert ran.count("QLinearConv") == float_ops.count("Conv") > 10
    assert not {"Conv", "FusedConv", "NchwcConv", "Gemm"} & set(ran)
    graph = onnx.load_model_from_string(raw).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type == "Conv":
            quantised, scale = (constants[name] for name in producers[node.input[1]].input[:2])
            assert quantised.dtype == np.int8
            assert scale.shape == (len(quantised),)
            assert np.abs(quantised.astype(int)).max() <= 64  # 7 bits: two products fit into 16


def test_the_same_input_gives_the_same_bytes_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = to_onnx(small_net(), SHAPE)
    first = quantise(model, noise(3, *SHAPE[1:]))
    assert first == quantise(model, noise(3, *SHAPE[1:]))
    assert first != quantise(model, 2 * noise(3, *SHAPE[1:]))
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_any_number_of_images_fills_the_batches():
    model = to_onnx(small_net(), (4, 3, 16, 16))
    images = noise(6, 3, 16, 16)
    assert quantise(model, images) == quantise(model, np.concatenate([images, images[:2]]))
    assert quantise(model, images) != quantise(model, images[:4])


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (None, "needs calibration images"),
        (noise(0, 3, 16, 16), r"0 x 3 x 16 x 16; give float32 of N x 3 x 16 x 16"),
        (noise(2, 3, 8, 8), r"give float32 of N x 3 x 16 x 16"),
        (noise(2, 3, 16, 16).astype(np.float64), "calibration is float64"),
        (np.full((1, 3, 16, 16), np.nan, np.float32), "not finite"),
    ],
)
def test_calibration_that_cannot_be_used_is_one_line(calibration, words):
    with pytest.raises(UserError, match=words) as caught:
        compile_model(small_net(), INT8, SHAPE, calibration=calibration)
    assert "\n" not in str(caught.value)


def test_noise_is_for_int8_only_and_comes_from_the_seed():
    assert random_calibration(Target(), SHAPE, 0) is None
    first, again, other = (random_calibration(INT8, (2, 5), seed) for seed in (0, 0, 1))
    assert (first.shape, first.dtype) == ((4, 5), np.float32)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def signatures():
    found = {}
    for name in ("nano", "nano-me-dp"):
        for s in every_signature(load_space(name).restrict(resolutions=(28,)), (10,)):
            found.setdefault((s.kind, s.se, s.activation, s.stride, s.shortcut), s)
    return list(found.values())


@pytest.mark.parametrize("signature", signatures(), ids=lambda s: s.key)
def test_a_part_takes_and_gives_bytes_that_mean_what_the_module_says(signature):
    module = build_block(signature).eval()
    shape = (1, *signature.input_shape)
    calibration = noise(4, *shape[1:])
    borders = Borders(input=signature.kind != "stem", output=signature.kind != "classifier")
    engine = compile_model(module, INT8, shape, calibration=calibration, borders=borders)
    model = engine.model
    x = calibration[:1]
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    if borders.input:
        assert engine.input_type is np.uint8
        scale, zero = border_scale(model, "input", "DequantizeLinear")
        x = np.clip(np.round(x / scale) + zero, 0, 255).astype(np.uint8)
        if x.ndim == 4:
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    found = engine.run(x)
    if borders.output:
        assert found.dtype == np.uint8
        scale, zero = border_scale(model, "output", "QuantizeLinear")
        found = (found.astype(np.float32) - zero) * scale
        if found.ndim == 4:
            found = found.transpose(0, 3, 1, 2)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()


def test_parts_have_the_networks_kernels_and_no_conversions(tmp_path):
    """Stem, blocks, head and classifier, one after the other, run what the whole network runs."""
    space = load_space("nano").restrict(resolutions=(28,))
    plan = plan_network(space, space.largest(28, 1.0), 10)
    whole = kernels(target_onnx(SubNetwork(plan).eval(), INT8, (1, 3, 28, 28), noise(2, 3, 28, 28)), tmp_path)
    parts = []
    for signature in plan.signatures:
        shape = (1, *signature.input_shape)
        borders = Borders(input=signature.kind != "stem", output=signature.kind != "classifier")
        calibration = noise(2, *signature.input_shape)
        parts += kernels(
            target_onnx(build_block(signature).eval(), INT8, shape, calibration, borders), tmp_path
        )
    assert parts == whole


def test_a_part_may_be_cut_at_one_end_only_and_keep_channels_first():
    model = to_onnx(small_net(), SHAPE)
    for borders in (Borders(input=True), Borders(output=True), INSIDE):
        graph = onnx.load_model_from_string(quantise(model, noise(2, *SHAPE[1:]), borders)).graph
        kinds = [value.type.tensor_type.elem_type for value in (graph.input[0], graph.output[0])]
        wanted = {True: onnx.TensorProto.UINT8, False: onnx.TensorProto.FLOAT}
        assert kinds == [wanted[borders.input], wanted[borders.output]]
        assert "Transpose" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods_cut_what_is_rare(method, capsys):
    images = noise(64, *SHAPE[1:])
    images[0, 0, 0, 0] = 500.0
    model = to_onnx(small_net(), SHAPE)
    whole, cut = (
        border_scale(quantise(model, images, method=one), "input", "QuantizeLinear")[0]
        for one in ("min-max", method)
    )
    assert whole == pytest.approx(500 / 255, rel=0.02)
    assert cut < 0.6 * whole
    assert capsys.readouterr().out == ""


def test_a_layer_is_left_in_float_with_what_follows_it():
    model = to_onnx(small_net(), SHAPE)
    found = layers(onnx.load_model_from_string(model))
    assert [len(names) for names in found.values()] == [2, 1]  # convolution and activation, convolution
    first = next(iter(found))
    graph = onnx.load_model_from_string(quantise(model, noise(4, *SHAPE[1:]), float_layers=(first,))).graph
    quantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    weights = {node.name: node.input[1] in quantised for node in graph.node if node.op_type == "Conv"}
    assert [name for name, is_int8 in weights.items() if not is_int8] == [first]
    with pytest.raises(UserError, match="no layer 'x'"):
        quantise(model, noise(4, *SHAPE[1:]), float_layers=("x",))


def test_a_free_batch_stays_free():
    model = target_onnx(small_net(), INT8, SHAPE, noise(6, *SHAPE[1:]), free_batch=True)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": noise(5, *SHAPE[1:])})[0].shape == (5, 4, 16, 16)
