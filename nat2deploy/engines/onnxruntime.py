"""ONNX Runtime on the CPU: the backend that edge bundles run with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from nat2deploy.engines.base import Engine, Images, check_shape
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.onnx_session import OnnxSession
from nat2deploy.errors import UserError
from nat2deploy.target import Target


class OnnxRuntimeEngine(Engine):
    """An ONNX model in an ONNX Runtime session on the CPU, all graph optimisations on.

    Args:
        model: the bytes of an ONNX file with one float32 input and one output, weights inside.
        target: its threads and batch are what the session uses.
        source: where the model came from, for errors.

    Raises:
        UserError: not an ONNX model, or one with other inputs, outputs or batch.
    """

    def __init__(self, model: bytes, target: Target, *, source: str = "the ONNX model") -> None:
        self.model = model
        self._onnx = OnnxSession(model, threads=target.threads, batch=target.batch, source=source)
        super().__init__(target, self._onnx.input_shape, any_batch=self._onnx.any_batch)

    @classmethod
    def from_module(
        cls, module: nn.Module, target: Target, input_shape: tuple[int, ...]
    ) -> OnnxRuntimeEngine:
        """Export ``module`` (evaluation mode) with a fixed ``input_shape`` and compile it.

        Raises:
            UserError: the module cannot be exported, or the shape has another batch than the target.
        """
        check_shape(target, input_shape)
        return cls(to_onnx(module, input_shape), target, source="the exported network")

    @classmethod
    def from_file(cls, path: Path, target: Target) -> OnnxRuntimeEngine:
        """Compile the ONNX file ``path``.

        Raises:
            UserError: missing, unreadable, not ONNX, or not one input and one output.
        """
        try:
            model = path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"no ONNX model at {path}; check the path") from error
        except OSError as error:
            raise UserError(f"cannot read the ONNX model {path}: {error.strerror}") from error
        return cls(model, target, source=str(path))

    def _run(self, images: Images) -> Images:
        return self._onnx.run(images)

    def _prepare(self, images: Images) -> Callable[[], None]:
        return self._onnx.prepare(images)

    def _save(self, path: Path) -> None:
        path.write_bytes(self.model)
