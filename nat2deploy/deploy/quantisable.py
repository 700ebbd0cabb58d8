"""Float networks that become 8-bit with any of their layers left in float: of one file, or of stages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

import onnx

from nat2deploy.deploy.parity import Floats
from nat2deploy.engines.calibration import Method
from nat2deploy.engines.onnx_export import normalise
from nat2deploy.engines.quantiser import Quantiser

ModelOut = TypeVar("ModelOut", covariant=True)
Model = TypeVar("Model")
"""The bytes of an ONNX file, or of several that are run one after another."""


class Quantisable(Protocol[ModelOut]):
    """A float model that becomes 8-bit with any of its layers left in float."""

    @property
    def layers(self) -> Collection[str]:
        """Names of the layers."""

    def in_8_bits(self, float_layers: Collection[str]) -> ModelOut:
        """The model in 8 bits, but for the layers named."""


class Whole:
    """A model of one file.

    Args:
        model: bytes of an ONNX file in float32.
        calibration: float32 [N, ...], its input.
        symmetric: as ``quantise``.
        method: as ``quantise``.

    Raises:
        UserError: the model cannot be quantised.
    """

    def __init__(self, model: bytes, calibration: Floats, *, symmetric: bool, method: Method) -> None:
        self._quantiser = Quantiser(
            onnx.load_model_from_string(model), calibration, symmetric=symmetric, method=method
        )

    @property
    def layers(self) -> Collection[str]:
        """Names of the layers, by their first operator."""
        return self._quantiser.layers

    def in_8_bits(self, float_layers: Collection[str]) -> bytes:
        """The model in 8 bits, but for the layers named."""
        return normalise(self._quantiser.quantised(float_layers))


class Stages:
    """The stages of a network with early exits; layers are named ``stage 2: NAME``.

    Args:
        models: bytes of an ONNX file in float32 a stage.
        calibration: float32 [N, ...] a stage, its input.
        method: as ``quantise``.

    Raises:
        UserError: a model cannot be quantised.
    """

    def __init__(self, models: Sequence[bytes], calibration: Sequence[Floats], *, method: Method) -> None:
        self._stages = [
            Whole(model, shown, symmetric=False, method=method)
            for model, shown in zip(models, calibration, strict=True)
        ]
        self._own = {
            f"stage {number}: {layer}": (number, layer)
            for number, stage in enumerate(self._stages, start=1)
            for layer in stage.layers
        }

    @property
    def layers(self) -> Collection[str]:
        """Names of all stages' layers."""
        return self._own

    def in_8_bits(self, float_layers: Collection[str]) -> tuple[bytes, ...]:
        """The stages in 8 bits, but for the layers named."""
        kept = [self._own[layer] for layer in float_layers]
        return tuple(
            stage.in_8_bits([layer for number, layer in kept if number == this])
            for this, stage in enumerate(self._stages, start=1)
        )
