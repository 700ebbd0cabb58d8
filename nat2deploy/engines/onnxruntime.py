"""ONNX Runtime on the CPU: the backend that edge bundles run with."""

from __future__ import annotations

from collections.abc import Callable

from nat2deploy.engines.base import Array
from nat2deploy.engines.ends import Ends
from nat2deploy.engines.onnx_engine import OnnxEngine
from nat2deploy.engines.onnx_session import OnnxSession
from nat2deploy.target import Target


class OnnxRuntimeEngine(OnnxEngine):
    """An ONNX model in an ``OnnxSession``.

    Raises:
        UserError: as ``OnnxEngine``.
    """

    def _load(self, model: bytes, target: Target, source: str) -> Ends:
        self._onnx = OnnxSession(
            model,
            threads=target.threads,
            batch=target.batch,
            parts=target.precision == "int8",
            source=source,
        )
        return self._onnx.ends

    def _run(self, images: Array) -> Array:
        return self._onnx.run(images)

    def _prepare(self, images: Array) -> Callable[[], None]:
        return self._onnx.prepare(images)
