"""The contract of every engine: a compiled network that runs on fixed-shape input and can be timed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nat2deploy.engines.ends import InputType
from nat2deploy.errors import UserError
from nat2deploy.files import write_atomic
from nat2deploy.precision import Precision
from nat2deploy.target import Target

if TYPE_CHECKING:
    from torch import nn

Images = NDArray[np.float32]
Array = NDArray[Any]


@dataclass(frozen=True)
class Borders:
    """Which ends of a module lie inside a network, whose parts hand over an own format there."""

    input: bool = False
    output: bool = False


WHOLE = Borders()
"""A whole network: its ends face the user."""


class Engine(ABC):
    """A network, compiled for one target and one input shape.

    The public methods check; a backend writes ``_run``, ``_prepare`` and, where it can be kept, ``_save``.
    One of a plug-in says in ``precisions`` what it runs, and writes ``from_module``.

    Args:
        target: what the engine was compiled for.
        input_shape: the input with its batch first, usually ``(B, 3, H, W)``.
        any_batch: whether ``run`` may be given another batch than ``input_shape[0]``.
        input_type: float32 but for a part of an int8 network (see ``Borders``), which takes uint8 or int8.

    Raises:
        UserError: ``input_shape`` holds something else than positive sizes, or another batch than the target.
    """

    precisions: ClassVar[Mapping[str, tuple[Precision, ...]]] = {}
    """Of a plug-in: the number formats that it runs, by kind of device, such as ``{"cpu": ("fp32",)}``."""

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        target: Target,
        input_shape: tuple[int, ...],
        *,
        calibration: Images | None = None,
        borders: Borders = WHOLE,
    ) -> Engine:
        """Compile a plain module; the arguments are those of ``registry.compile_model``.

        Raises:
            UserError: the module cannot be compiled, or the batch is not the target's.
        """
        raise UserError(f"backend {target.backend} compiles no modules; choose another")

    def __init__(
        self,
        target: Target,
        input_shape: tuple[int, ...],
        *,
        any_batch: bool = False,
        input_type: InputType = np.float32,
    ) -> None:
        check_shape(target, input_shape)
        self.target = target
        self.input_shape = input_shape
        self.any_batch = any_batch
        self.input_type = input_type

    @property
    def run_batch(self) -> int:
        """How many images ``run`` gets at once where there are many of them."""
        return self.input_shape[0]

    def run(self, images: Array) -> Array:
        """Run the network once.

        Args:
            images: ``input_type`` of ``input_shape`` (any batch where ``any_batch``).

        Returns:
            The network's output, a fresh array; float32 but for a part of an int8 network.

        Raises:
            UserError: wrong type, rank, sizes or batch.
        """
        return self._run(self._checked(images))

    def prepare(self, images: Array) -> Callable[[], None]:
        """Bind ``images`` once and return the leanest callable that runs the network on them.

        For timing: call it within ``measure.environment.pinned_threads``. The output is thrown away, and the
        callable holds its own copy of the input.

        Raises:
            UserError: wrong type, rank, sizes or batch.
        """
        return self._prepare(self._checked(images).copy())

    def save(self, path: Path) -> None:
        """Write the engine to ``path`` atomically; ``registry.load_engine`` reads it back.

        Raises:
            UserError: the place cannot be written to, or the backend keeps nothing on disk.
        """
        write_atomic(path, self._save)

    @abstractmethod
    def _run(self, images: Array) -> Array:
        """Run on checked, contiguous input."""

    @abstractmethod
    def _prepare(self, images: Array) -> Callable[[], None]:
        """Return the callable for checked, contiguous input that nothing else writes to."""

    @abstractmethod
    def _save(self, path: Path) -> None:
        """Write the engine's file to ``path``."""

    def _checked(self, images: Array) -> Array:
        wanted = " x ".join(map(str, self.input_shape))
        if not isinstance(images, np.ndarray) or images.dtype != self.input_type:
            kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise UserError(
                f"engine input is {kind}; give a numpy array of {self.input_type.__name__}, {wanted}"
            )
        if images.ndim != len(self.input_shape) or images.shape[1:] != self.input_shape[1:]:
            given = " x ".join(map(str, images.shape)) or "a single number"
            raise UserError(f"engine input is {given}; this network takes {wanted}")
        if images.shape[0] != self.input_shape[0] and not (self.any_batch and images.shape[0] > 0):
            raise UserError(
                f"engine input has a batch of {images.shape[0]}; this engine was compiled for "
                f"{self.input_shape[0]}, so split the images or compile with that batch"
            )
        return np.ascontiguousarray(images)


def check_shape(target: Target, input_shape: tuple[int, ...]) -> None:
    """Check that an input shape can be compiled for a target.

    Raises:
        UserError: fewer than two axes, a size below one, or another batch than the target's.
    """
    if len(input_shape) < 2 or min(input_shape) < 1:
        raise UserError(
            f"input shape {input_shape} cannot be compiled; give (batch, channels, height, width)"
        )
    if input_shape[0] != target.batch:
        raise UserError(
            f"input shape {input_shape} has a batch of {input_shape[0]}, the target ({target}) one of "
            f"{target.batch}; make them agree"
        )
