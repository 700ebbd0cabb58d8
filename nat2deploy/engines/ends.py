"""Which inputs and outputs an ONNX model must have, by numpy alone: for the agent on a device, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nat2deploy.errors import UserError


@dataclass(frozen=True)
class Ends:
    """The input of an ONNX model.

    Attributes:
        input_shape: with its batch first.
        input_type: float32, or uint8 for a part of an int8 network.
        any_batch: whether the model takes other batches, too.
    """

    input_shape: tuple[int, ...]
    input_type: type[np.float32] | type[np.uint8]
    any_batch: bool


def check_ends(
    inputs: Sequence[tuple[str, str, Sequence[int | None]]],
    outputs: int,
    *,
    batch: int,
    parts: bool,
    source: str,
) -> Ends:
    """Check that an ONNX model has the inputs and outputs that an engine runs.

    Args:
        inputs: name, type (``float32``, ``uint8``, others) and shape of each; a free size is None.
        outputs: how many there are.
        batch: takes the place of a free one.
        parts: whether the model may be a part of an int8 network, whose input may be uint8.
        source: where the model came from, for errors.

    Raises:
        UserError: not one of each, another type, a free size beside the batch, or another batch.
    """
    types: dict[str, type[np.float32] | type[np.uint8]] = {"float32": np.float32}
    if parts:
        types["uint8"] = np.uint8
    if len(inputs) != 1 or inputs[0][1] not in types:
        given = ", ".join(f"{name}: {kind}" for name, kind, _ in inputs) or "none"
        raise UserError(f"{source} has the inputs ({given}); nat2deploy runs models with one float32 input")
    _, kind, shape = inputs[0]
    any_batch = bool(shape) and shape[0] is None
    sizes = [batch, *shape[1:]] if any_batch else shape
    fixed = tuple(size for size in sizes if size is not None)
    if len(fixed) < len(sizes):
        free = " x ".join("?" if size is None else str(size) for size in shape)
        raise UserError(f"{source} has an input of free size {free}; export it with fixed sizes")
    if fixed and fixed[0] != batch:
        raise UserError(
            f"{source} has a batch of {fixed[0]}, the target one of {batch}; "
            "export it again or set the target's batch"
        )
    if outputs != 1:
        raise UserError(f"{source} has {outputs} outputs; nat2deploy runs models with one")
    return Ends(fixed, types[kind], any_batch)
