"""8 bits for a graph: which operators get them, and with which scales."""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from nat2deploy.engines.base import Images
from nat2deploy.engines.calibration import OPERATORS, Method, activation_ranges
from nat2deploy.errors import UserError

_WEIGHTED = ("Conv", "Gemm", "MatMul")


class Quantiser:
    """A float model, calibrated once, that becomes 8-bit with any of its layers left in float.

    Args:
        proto: as ``quantise.quantise``.
        calibration: as ``quantise.quantise``.
        symmetric: as ``quantise.quantise``.
        method: as ``activation_ranges``.

    Raises:
        UserError: as ``quantise.quantise``.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        calibration: Images,
        *,
        symmetric: bool = False,
        method: Method = "min-max",
    ) -> None:
        self._symmetric = symmetric
        with _quiet(), _one_line():
            self._proto = onnx.shape_inference.infer_shapes(_named(proto))
            self._ranges = activation_ranges(self._proto, calibration, method)
        self.layers = layers(self._proto)
        """Names of the operators of each layer: one with weights and what follows it, by the first's name."""

    def quantised(self, float_layers: Collection[str] = ()) -> onnx.ModelProto:
        """Return the model in 8 bits, with QDQ, but for the layers named.

        Raises:
            UserError: no such layer, or a graph that cannot be quantised.
        """
        unknown = sorted(set(float_layers) - set(self.layers))
        if unknown:
            raise UserError(f"the network has no layer '{unknown[0]}' to be left in float")
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        with _quiet(), _one_line():
            quantiser = QDQQuantizer(
                proto,
                True,  # weights per channel
                not self._symmetric,  # in 7 bits
                QuantType.QInt8,
                QuantType.QInt8 if self._symmetric else QuantType.QUInt8,
                self._ranges,
                [],
                [node for layer in float_layers for node in self.layers[layer]],
                list(OPERATORS),
                {
                    # Else pooling and reshaping stay float where they come first, as they do in a part only.
                    "ForceQuantizeNoInputCheck": True,
                    "ActivationSymmetric": self._symmetric,
                    "QuantizeBias": not self._symmetric,
                },
            )
            quantiser.quantize_model()
            quantiser.model.topological_sort()
        found: onnx.ModelProto = quantiser.model.model
        return found


def layers(proto: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Group a graph's operators into layers, by the name of the first, in the order of the graph.

    A layer is a convolution or matrix product with the operators behind it, up to the next of those: what is
    left in float together, so that no activation between them is rounded.
    """
    found: dict[str, list[str]] = {}
    of_tensor: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type == "Constant":  # numbers of the graph, such as sizes of a shuffle
            continue
        before = [of_tensor[name] for name in node.input if name in of_tensor]
        if node.op_type in _WEIGHTED or not before:
            layer = node.name
            found[layer] = []
        else:
            layer = before[0]
        found[layer].append(node.name)
        of_tensor.update(dict.fromkeys(node.output, layer))
    return {layer: tuple(names) for layer, names in found.items()}


def _named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give operators without a name one, by which they can be left out."""
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return proto


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a script's worth of unrelated classes
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the network cannot be quantised to int8: {line}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, to the root logger and to standard output, away from the user."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
