"""What engines that run an ONNX file have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Self

from torch import nn

from nat2deploy.engines.base import WHOLE, Borders, Engine, Images, check_shape
from nat2deploy.engines.ends import Ends
from nat2deploy.engines.quantise import target_onnx
from nat2deploy.errors import UserError
from nat2deploy.target import Target


class OnnxEngine(Engine):
    """An engine made of an ONNX model, which is what it saves.

    Args:
        model: the bytes of an ONNX file with one float32 input and one output, weights inside; for an int8
            target both may be uint8.
        target: its threads, batch and precision are what the engine uses.
        source: where the model came from, for errors.

    Raises:
        UserError: not an ONNX model, or one with other inputs, outputs or batch.
    """

    def __init__(self, model: bytes, target: Target, *, source: str = "the ONNX model") -> None:
        ends = self._load(model, target, source)
        super().__init__(target, ends.input_shape, any_batch=ends.any_batch, input_type=ends.input_type)
        self.model = model

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        target: Target,
        input_shape: tuple[int, ...],
        *,
        calibration: Images | None = None,
        borders: Borders = WHOLE,
    ) -> Self:
        """Export ``module`` (evaluation mode) with a fixed ``input_shape`` and compile it.

        ``calibration`` and ``borders`` are as in ``target_onnx``.

        Raises:
            UserError: the module cannot be exported or quantised, or the shape has another batch than the
                target.
        """
        check_shape(target, input_shape)
        model = target_onnx(module, target, input_shape, calibration, borders)
        return cls(model, target, source="the exported network")

    @classmethod
    def from_file(cls, path: Path, target: Target) -> Self:
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

    @abstractmethod
    def _load(self, model: bytes, target: Target, source: str) -> Ends:
        """Compile the model, check its ends and return what the engine's input is like."""

    def _save(self, path: Path) -> None:
        path.write_bytes(self.model)
