"""ONNX Runtime on the CPU: the backend that edge bundles run with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from nat2deploy.engines.base import Array
from nat2deploy.engines.ends import Ends
from nat2deploy.engines.onnx_engine import OnnxEngine
from nat2deploy.engines.onnx_session import OnnxSession
from nat2deploy.errors import UserError
from nat2deploy.target import Target


class OnnxRuntimeEngine(OnnxEngine):
    """An ONNX model in an ``OnnxSession``.

    Raises:
        UserError: as ``OnnxEngine``.
    """

    exact = False
    """Whether each operator runs as it stands."""

    def _load(self, model: bytes, target: Target, source: str) -> Ends:
        self._onnx = OnnxSession(
            model,
            threads=target.threads,
            batch=target.batch,
            parts=target.precision == "int8",
            source=source,
            exact=self.exact,
        )
        return self._onnx.ends

    def _run(self, images: Array) -> Array:
        return self._onnx.run(images)

    def _prepare(self, images: Array) -> Callable[[], None]:
        return self._onnx.prepare(images)


class ExactOnnxRuntimeEngine(OnnxRuntimeEngine):
    """The same without optimisations: what a model for another engine computes, 8 bits simulated in float."""

    exact = True


def save_optimised(model: bytes, path: Path) -> None:
    """Write the graph as ONNX Runtime optimises it for this processor; for this version of it, too.

    Raises:
        UserError: the model does not load.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4  # it warns that the file is for this processor
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the bindings raise a dozen unrelated classes
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"ONNX Runtime {ort.__version__} cannot optimise the network: {line}") from error
