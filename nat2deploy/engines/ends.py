"""Which inputs and outputs an ONNX model must have, by numpy alone: for the agent on a device, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

from nat2deploy.errors import UserError

InputType = Union[type[np.float32], type[np.uint8], type[np.int8]]  # noqa: UP007 - old Pythons run this
WHOLE_TYPES: Mapping[str, InputType] = {"float32": np.float32}
"""What the input of a whole network may be, by the model's type: the type that an engine takes for it."""
BYTE_TYPES: Mapping[str, InputType] = {**WHOLE_TYPES, "uint8": np.uint8}
"""The same, or what a part of an int8 network takes on a CPU."""
HALF_TYPES: Mapping[str, InputType] = {**WHOLE_TYPES, "float16": np.float32}
"""The same, or what a part of an fp16 network takes; engines take float32 for it and convert."""


@dataclass(frozen=True)
class Ends:
    """The input of an ONNX model.

    Attributes:
        input_shape: with its batch first.
        input_type: float32, or uint8 or int8 for a part of an int8 network.
        any_batch: whether the model takes other batches, too.
    """

    input_shape: tuple[int, ...]
    input_type: InputType
    any_batch: bool


def check_ends(
    inputs: Sequence[tuple[str, str, Sequence[int | None]]],
    outputs: int,
    *,
    batch: int,
    types: Mapping[str, InputType],
    source: str,
    wanted_outputs: int = 1,
) -> Ends:
    """Check that an ONNX model has the inputs and outputs that an engine runs.

    Args:
        inputs: name, type (``float32``, ``uint8``, others) and shape of each; a free size is None.
        outputs: how many there are.
        batch: takes the place of a free one.
        types: the types that the input may have, with the one that the engine takes in its place.
        source: where the model came from, for errors.
        wanted_outputs: how many there must be.

    Raises:
        UserError: another number of them, another type, a free size beside the batch, or another batch.
    """
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
    if outputs != wanted_outputs:
        wanted = "one" if wanted_outputs == 1 else f"{wanted_outputs} here"
        raise UserError(f"{source} has {outputs} outputs; nat2deploy runs models with {wanted}")
    return Ends(fixed, types[kind], any_batch)
