"""What engines that run an ONNX file have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Self

import numpy as np
from torch import nn

from nat2deploy.engines.base import WHOLE, Borders, Engine, Images, InputType, check_shape
from nat2deploy.engines.quantise import target_onnx
from nat2deploy.errors import UserError
from nat2deploy.target import Target

Ends = tuple[tuple[int, ...], InputType, bool]
"""Shape and type of a model's input, and whether it takes any batch."""


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
        shape, input_type, any_batch = self._load(model, target, source)
        super().__init__(target, shape, any_batch=any_batch, input_type=input_type)
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
        """Compile the model, check its ends and return what ``check_ends`` says of them."""

    def _save(self, path: Path) -> None:
        path.write_bytes(self.model)


def check_ends(
    inputs: list[tuple[str, str, list[int | None]]], outputs: int, target: Target, source: str
) -> Ends:
    """Check that an ONNX model has the inputs and outputs that an engine of ``target`` runs.

    Args:
        inputs: name, type (``float32``, ``uint8``, others) and shape of each; a free size is None.
        outputs: how many there are.
        target: its batch takes the place of a free one.
        source: where the model came from, for errors.

    Returns:
        The input's shape with the target's batch, its type, and whether the batch is free.

    Raises:
        UserError: not one of each, another type, a free size beside the batch, or another batch.
    """
    types: dict[str, InputType] = {"float32": np.float32}
    if target.precision == "int8":
        types["uint8"] = np.uint8  # a part of a network
    if len(inputs) != 1 or inputs[0][1] not in types:
        given = ", ".join(f"{name}: {kind}" for name, kind, _ in inputs) or "none"
        raise UserError(f"{source} has the inputs ({given}); nat2deploy runs models with one float32 input")
    _, kind, shape = inputs[0]
    any_batch = bool(shape) and shape[0] is None
    sizes = [target.batch, *shape[1:]] if any_batch else shape
    fixed = tuple(size for size in sizes if size is not None)
    if len(fixed) < len(sizes):
        free = " x ".join("?" if size is None else str(size) for size in shape)
        raise UserError(f"{source} has an input of free size {free}; export it with fixed sizes")
    if fixed and fixed[0] != target.batch:
        raise UserError(
            f"{source} has a batch of {fixed[0]}, the target ({target}) one of {target.batch}; "
            "export it again or set the target's batch"
        )
    if outputs != 1:
        raise UserError(f"{source} has {outputs} outputs; nat2deploy runs models with one")
    return fixed, types[kind], any_batch
