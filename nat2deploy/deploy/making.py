"""What a network is made of for its target: how the engine is made, and the images that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.compiled import Batches
from nat2deploy.deploy.judging import MAX_ACCURACY_DROP, Labelled, Promise
from nat2deploy.engines.base import Engine
from nat2deploy.engines.calibration import Method
from nat2deploy.target import Target

Int8Layers = Literal["all", "faster"]


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is made.

    Attributes:
        sm: compute capabilities, such as 86 for 8.6, to compile ahead for, with TensorRT for RTX.
        batches: the smallest batch, the one to be fastest at (the target's), the largest; for TensorRT.
        method: of calibration, for int8.
        max_accuracy_drop: how far the top-1 of int8 may lie below PyTorch's in float, as a share; layers
            stay in float for it.
        int8_layers: which get 8 bits: ``all``, or those that are measured to be ``faster`` in them.
        qat_epochs: for how many epochs the module was tuned for 8 bits, for the manifest; and at which rate.
        save_optimised: add ONNX Runtime's graph as it is optimised for this machine.
    """

    sm: tuple[int, ...] = ()
    batches: Batches | None = None
    method: Method = "min-max"
    max_accuracy_drop: float = MAX_ACCURACY_DROP
    int8_layers: Int8Layers = "all"
    save_optimised: bool = False
    qat_epochs: float = 0.0
    qat_learning_rate: float | None = None


@dataclass(frozen=True)
class Making:
    """What one file and stages are made with alike; as ``export_bundle``'s arguments.

    ``eager`` is the network in PyTorch, and ``untuned`` the one before it was tuned for 8 bits, if it was:
    what accuracy is held against. ``promise``: as a search simulates 8 bits.
    """

    target: Target
    preprocessing: Preprocessing
    batches: Batches
    options: EngineOptions
    eager: Engine
    untuned: Engine
    reference_images: Tensor
    calibration_images: Tensor | None
    validation: Labelled | None
    test: Labelled | None
    promise: Promise | None
    seed: int
    time_limit_s: float | None
    progress: Callable[[str], None]
