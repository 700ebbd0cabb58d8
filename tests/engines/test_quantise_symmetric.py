"""TensorRT's form of 8 bits, simulated by ONNX Runtime on the CPU."""

import numpy as np
import onnx
import pytest
from int8_helpers import SIDE
from onnx import TensorProto, numpy_helper

from nat2deploy.deploy.parity import agrees, compare
from nat2deploy.engines.base import Borders
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.onnx_session import open_session
from nat2deploy.engines.quantise import quantise, target_onnx
from nat2deploy.target import Target

SHAPE = (50, 3, SIDE, SIDE)
INT8 = Target(device="cuda", backend="tensorrt", precision="int8", batch=50)


@pytest.fixture(scope="module")
def model(trained):
    return target_onnx(trained.network, INT8, SHAPE, trained.seen[:100])


def run(raw, images):
    """Each operator as it stands: kernels of x86 without VNNI have not the room for weights of 8 bits."""
    session = open_session(raw, 1, "the model", exact=True)
    return session.run(None, {"input": images})[0]


def test_a_trained_networks_answers_survive(trained, model):
    images = trained.unseen[:50]
    assert agrees(compare(run(model, images), run(to_onnx(trained.network, SHAPE), images)), "int8")


def test_zero_is_0_biases_are_float_and_weights_use_8_bits(trained, model):
    graph = onnx.load_model_from_string(model).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    scaled = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(scaled) > 20
    for node in scaled:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert "int32" not in {one.dtype.name for one in constants.values()}
    weights = [one for one in constants.values() if one.dtype == np.int8 and one.ndim == 4]
    assert max(np.abs(one.astype(int)).max() for one in weights) == 127


@pytest.mark.parametrize("inside", [Borders(input=True), Borders(output=True), Borders(True, True)])
def test_ends_inside_a_network_are_signed_bytes(trained, inside):
    graph = onnx.load_model_from_string(
        target_onnx(trained.network, INT8, SHAPE, trained.seen[:50], inside)
    ).graph
    kinds = {True: TensorProto.INT8, False: TensorProto.FLOAT}
    found = [value.type.tensor_type.elem_type for value in (graph.input[0], graph.output[0])]
    assert found == [kinds[inside.input], kinds[inside.output]]
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == list(SHAPE)


def test_the_form_for_cpus_stays_as_it_was(trained):
    plain = quantise(to_onnx(trained.network, SHAPE), trained.seen[:50])
    cpu = Target(backend="openvino", precision="int8", batch=50)
    assert target_onnx(trained.network, cpu, SHAPE, trained.seen[:50]) == plain
    kinds = {one.data_type for one in onnx.load_model_from_string(plain).graph.initializer}
    assert {TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32} <= kinds
