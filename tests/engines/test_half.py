import numpy as np
import onnx
import onnxruntime as ort
import pytest
from int8_helpers import SIDE
from onnx import TensorProto, numpy_helper

from nat2deploy.blocks import build_block, reset_seeded
from nat2deploy.engines.base import Borders
from nat2deploy.engines.half import to_half
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.quantise import target_onnx
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target

SHAPE = (50, 3, SIDE, SIDE)
HALF = Target(device="cuda", precision="fp16")
EVERY_BORDER = [Borders(one, other) for one in (False, True) for other in (False, True)]


def run(model, images):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    kind = np.float16 if given.type == "tensor(float16)" else np.float32
    return session.run(None, {given.name: images.astype(kind)})[0]


@pytest.mark.parametrize("borders", EVERY_BORDER)
def test_a_trained_networks_answers_survive(trained, borders):
    model = to_onnx(trained.network, SHAPE)
    images = trained.unseen[:50]
    expected, found = run(model, images), run(to_half(model, borders), images)
    assert found.dtype == (np.float16 if borders.output else np.float32)
    scale = np.abs(expected).max()
    difference = np.abs(found.astype(np.float32) - expected).max() / scale
    assert 1e-6 < difference < 0.01  # really rounded, and no more than that
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98


@pytest.mark.parametrize("borders", EVERY_BORDER)
def test_arithmetic_is_float16_and_only_outer_ends_are_converted(trained, borders):
    raw = target_onnx(trained.network, HALF, SHAPE, borders=borders)
    assert raw == to_half(to_onnx(trained.network, SHAPE), borders)
    model = onnx.load_model_from_string(raw)
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    inner = {True: TensorProto.FLOAT16, False: TensorProto.FLOAT}
    assert kinds == [inner[borders.input], inner[borders.output]]
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert len(casts) == (not borders.input) + (not borders.output)
    weights = [numpy_helper.to_array(one) for one in graph.initializer]
    assert {one.dtype for one in weights if one.dtype.kind == "f"} == {np.dtype(np.float16)}


@pytest.mark.parametrize("space", ["nano", "nano-me-dp"])
def test_every_kind_of_block_converts(space):
    kinds = {signature.kind: signature for signature in every_signature(load_space(space), (10,))}
    for signature in kinds.values():
        block = build_block(signature).eval()
        reset_seeded(block, 0)
        shape = (2, *signature.input_shape)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        model = to_onnx(block, shape)
        expected, found = run(model, images), run(to_half(model, Borders(True, True)), images)
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.01 * np.abs(expected).max())
