"""From a float32 ONNX model to one that computes in float16."""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from nat2deploy.engines.base import WHOLE, Borders
from nat2deploy.engines.onnx_export import INPUT, OUTPUT, normalise


def to_half(model: bytes, borders: Borders = WHOLE) -> bytes:
    """Convert weights and arithmetic to float16; the same input gives the same bytes.

    Weights are rounded after batch normalisation has been folded into them. Ends that face the user stay
    float32; those inside a network are float16, so that a block measured alone has no conversions beside it.

    Args:
        model: bytes of an ONNX file of float32 ``input`` and ``output``.
        borders: which ends lie inside a network.
    """
    faced = [name for name, inside in ((INPUT, borders.input), (OUTPUT, borders.output)) if not inside]
    proto = convert_float_to_float16(onnx.load_model_from_string(model), keep_io_types=faced)
    graph = proto.graph
    # The converter puts the conversion of the input last, where the format wants it before its readers.
    nodes = sorted(graph.node, key=lambda node: not (node.op_type == "Cast" and INPUT in node.input))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    return normalise(proto)
