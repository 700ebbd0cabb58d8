"""What a bundle says that its network costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import onnx

from nat2deploy.precision import Precision


class CostsLike(Protocol):
    """Exact costs, and the predicted latency where there is a table."""

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations."""

    @property
    def params(self) -> int:
        """Number of weights."""

    @property
    def latency_ms(self) -> float | None:
        """Predicted latency, or None."""


def weights_mb(models: Sequence[bytes], precision: Precision) -> float:
    """The size of the weights in ONNX files, in 10⁶ bytes, as a search counts it.

    The graphs are not counted, nor the scalars that scale activations; bfloat16 takes half of the float32
    that its files hold.
    """
    graphs = (onnx.load_model_from_string(model).graph for model in models)
    tensors = (onnx.numpy_helper.to_array(one) for graph in graphs for one in graph.initializer)
    found = sum(tensor.nbytes for tensor in tensors if tensor.ndim > 0) / 1e6
    return found / 2 if precision == "bf16" else found
