"""From a float ONNX model to its 8-bit twin: weights per channel, activations by calibration, as QDQ."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import nn

from nat2deploy.engines.base import WHOLE, Borders, Images
from nat2deploy.engines.calibration import Method
from nat2deploy.engines.half import to_half
from nat2deploy.engines.onnx_export import INPUT, OUTPUT, normalise, to_onnx
from nat2deploy.engines.quantiser import Quantiser
from nat2deploy.errors import UserError
from nat2deploy.target import Target

_CHANNELS_LAST = (0, 2, 3, 1)
_CHANNELS_FIRST = (0, 3, 1, 2)


def target_onnx(
    module: nn.Module,
    target: Target,
    input_shape: tuple[int, ...],
    calibration: Images | None = None,
    borders: Borders = WHOLE,
    *,
    free_batch: bool = False,
) -> bytes:
    """Export ``module`` in the target's number format.

    Args:
        module: takes one float32 tensor of ``input_shape`` and returns one tensor; left as it was.
        target: its precision decides; bf16 models are float32 files that the engine runs in bf16.
        input_shape: the input with its batch first.
        calibration: as ``quantise``; needed for int8, not looked at otherwise.
        borders: as ``quantise`` and ``to_half``.
        free_batch: leave the batch free.

    Raises:
        UserError: as ``to_onnx`` and ``quantise``, or int8 without calibration images.
    """
    model = to_onnx(module, input_shape, dynamic_batch=free_batch)
    if target.precision == "fp16":
        return to_half(model, borders)
    if target.precision != "int8":
        return model
    if calibration is None:
        raise UserError(
            f"the target ({target}) needs calibration images, which show how large activations get; give some"
        )
    # ONNX Runtime converts images to channels-last once, around all int8 convolutions that follow each other;
    # OpenVINO finds its int8 kernels only in graphs that do not say so themselves.
    channels_last = target.backend == "onnxruntime"
    return quantise(model, calibration, borders, channels_last=channels_last, symmetric=is_symmetric(target))


def is_symmetric(target: Target) -> bool:
    """Whether a target's 8-bit numbers have no zero points, TensorRT's form."""
    return target.kind == "cuda"


def quantise(
    model: bytes,
    calibration: Images,
    borders: Borders = WHOLE,
    *,
    channels_last: bool = False,
    symmetric: bool = False,
    method: Method = "min-max",
    float_layers: Collection[str] = (),
) -> bytes:
    """Quantise a float ONNX model statically; the same input gives the same bytes.

    Activations are uint8 with a zero point. Weights are int8 but use 7 bits of it: on x86 without VNNI the
    kernels add two products in 16 bits, which 8-bit weights overflow, and a file must be right everywhere.
    ``symmetric`` is TensorRT's form: activations are int8 without zero points, weights use all 8 bits, and
    biases stay float.

    An end that lies inside a network is cut between a quantisation and the dequantisation after it: such an
    input or output is uint8 (int8 where symmetric). Then a block measured alone has the kernels that it has
    in the network, and no conversions beside them.

    Args:
        model: bytes of an ONNX file of float32 ``input`` and ``output``, batch fixed.
        calibration: float32 [N, ...], the input's shape but for the batch; any N above zero.
        borders: which ends lie inside a network.
        channels_last: whether images at those ends are [B, H, W, C].
        symmetric: whether zero is 0 everywhere.
        method: of calibration, as ``activation_ranges``.
        float_layers: those of ``layers`` that stay in float.

    Raises:
        UserError: calibration of another type or shape, not finite, or a graph that cannot be quantised.
    """
    proto = onnx.load_model_from_string(model)
    if borders.output:
        _add_probe(proto.graph)
    proto = Quantiser(proto, calibration, symmetric=symmetric, method=method).quantised(float_layers)
    graph = proto.graph
    byte = TensorProto.INT8 if symmetric else TensorProto.UINT8
    if borders.input:
        _cut_input(graph, byte)
        if channels_last and len(_shape(graph.input[0])) == 4:
            _rename(graph, INPUT, "channels_first_input")
            graph.node.insert(0, _transpose(INPUT, "channels_first_input", _CHANNELS_FIRST))
            _make_channels_last(graph.input[0])
    if borders.output:
        _cut_output(graph, byte)
        if channels_last and len(_shape(graph.output[0])) == 4:
            _rename(graph, OUTPUT, "channels_first_output")
            graph.node.append(_transpose("channels_first_output", OUTPUT, _CHANNELS_LAST))
            _make_channels_last(graph.output[0])
    return normalise(proto)


def random_calibration(target: Target, input_shape: tuple[int, ...], seed: int) -> Images | None:
    """Return two batches of normal noise, float32 [2 × B, ...], or None where the precision needs none.

    Good enough for latency, which does not depend on values; useless for accuracy.
    """
    if target.precision != "int8":
        return None
    shape = (2 * input_shape[0], *input_shape[1:])
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)


def _add_probe(graph: onnx.GraphProto) -> None:
    """Let an operator that changes nothing follow, so that the output is quantised as for a next block."""
    axes = tuple(range(len(_shape(graph.output[0]))))
    _rename(graph, OUTPUT, "probed")
    graph.node.append(_transpose("probed", OUTPUT, axes))


def _cut_input(graph: onnx.GraphProto, byte: int) -> None:
    """Let the graph begin behind the quantisation of its input."""
    (first,) = (node for node in graph.node if INPUT in node.input)
    quantised = first.output[0]
    graph.node.remove(first)
    _rename(graph, quantised, INPUT)
    graph.input[0].type.tensor_type.elem_type = byte


def _cut_output(graph: onnx.GraphProto, byte: int) -> None:
    """Let the graph end behind the quantisation of what the probe sees."""
    producers = {name: node for node in graph.node for name in node.output}
    name = OUTPUT
    # Backwards over the probe and its own dequantisation, to the quantisation before it.
    probe_seen = False
    while not (probe_seen and producers[name].op_type == "QuantizeLinear"):
        node = producers[name]
        probe_seen |= node.op_type == "Transpose"
        name = node.input[0]
        graph.node.remove(node)
    _rename(graph, name, OUTPUT)
    graph.output[0].type.tensor_type.elem_type = byte


def _transpose(source: str, result: str, order: tuple[int, ...]) -> onnx.NodeProto:
    return helper.make_node("Transpose", [source], [result], name=f"to_{result}", perm=order)


def _make_channels_last(value: onnx.ValueInfoProto) -> None:
    shape, kind = _shape(value), value.type.tensor_type.elem_type
    sizes = [shape[axis] for axis in _CHANNELS_LAST]
    value.CopyFrom(helper.make_tensor_value_info(value.name, kind, sizes))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
