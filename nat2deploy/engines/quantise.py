"""From a float ONNX model to its 8-bit twin: weights per channel, activations by calibration, as QDQ."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from nat2deploy.engines.base import WHOLE, Borders, Images
from nat2deploy.engines.half import to_half
from nat2deploy.engines.onnx_export import INPUT, OUTPUT, normalise, to_onnx
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
) -> bytes:
    """Export ``module`` in the target's number format.

    Args:
        module: takes one float32 tensor of ``input_shape`` and returns one tensor; left as it was.
        target: its precision decides; bf16 models are float32 files that the engine runs in bf16.
        input_shape: the input with its batch first.
        calibration: as ``quantise``; needed for int8, not looked at otherwise.
        borders: as ``quantise`` and ``to_half``.

    Raises:
        UserError: as ``to_onnx`` and ``quantise``, or int8 without calibration images.
    """
    if target.precision == "fp16":
        return to_half(to_onnx(module, input_shape), borders)
    if target.precision != "int8":
        return to_onnx(module, input_shape)
    if calibration is None:
        raise UserError(
            f"the target ({target}) needs calibration images, which show how large activations get; give some"
        )
    # ONNX Runtime converts images to channels-last once, around all int8 convolutions that follow each other;
    # OpenVINO finds its int8 kernels only in graphs that do not say so themselves.
    channels_last = target.backend == "onnxruntime"
    symmetric = target.kind == "cuda"
    return quantise(
        to_onnx(module, input_shape), calibration, borders, channels_last=channels_last, symmetric=symmetric
    )


def quantise(
    model: bytes,
    calibration: Images,
    borders: Borders = WHOLE,
    *,
    channels_last: bool = False,
    symmetric: bool = False,
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

    Raises:
        UserError: calibration of another type or shape, not finite, or a graph that cannot be quantised.
    """
    proto = onnx.load_model_from_string(model)
    batches = _batches(calibration, _shape(proto.graph.input[0]))
    if borders.output:
        _add_probe(proto.graph)
    proto = _quantise(proto, batches, symmetric)
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


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Hands out batches one by one."""

    def __init__(self, batches: list[Images]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, Images] | None:
        """The next input by name, or None at the end."""
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}


def _batches(calibration: Images, shape: tuple[int, ...]) -> list[Images]:
    """Cut the calibration images into batches of the model; the last one is filled up from the front."""
    wanted = " x ".join(map(str, shape[1:]))
    if calibration.dtype != np.float32 or calibration.shape[1:] != shape[1:] or len(calibration) == 0:
        given = " x ".join(map(str, calibration.shape))
        raise UserError(f"calibration is {calibration.dtype} of {given}; give float32 of N x {wanted}")
    if not np.isfinite(calibration).all():
        raise UserError("calibration images hold values that are not finite; leave those images out")
    size = shape[0]
    filled = np.take(calibration, range(-(-len(calibration) // size) * size), axis=0, mode="wrap")
    return list(filled.reshape(-1, *shape))


def _quantise(proto: onnx.ModelProto, batches: list[Images], symmetric: bool) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="nat2deploy-") as folder, _quiet():
        path = Path(folder) / "model.onnx"
        try:
            quantize_static(
                proto,
                path,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=not symmetric,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={
                    # Else pooling and reshaping stay float where they come first, as they do in a part only.
                    "ForceQuantizeNoInputCheck": True,
                    "ActivationSymmetric": symmetric,
                    "QuantizeBias": not symmetric,
                },
            )
        except Exception as error:  # a script's worth of unrelated classes
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"the network cannot be quantised to int8: {line}") from error
        return onnx.load_model(path)


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which goes to the root logger, away from the user."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
