"""Memory that activations take: the operators of a block, and which tensors live while they run.

Sizes are counted in values. Activation functions work in place, BN is folded into the convolution before it
where there is one, and a tensor is freed after its last use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nat2deploy.space.signature import BlockSignature

_FLOAT_BYTES = 4


class Operator(NamedTuple):
    """One operator of a program: the tensors that it reads, and the size of the one that it writes.

    Tensors are counted from 0: first the program's inputs, then what each operator writes, in order.
    """

    reads: tuple[int, ...]
    writes: int


def live_values(
    inputs: Sequence[int], operators: Sequence[Operator], kept: Sequence[int] = ()
) -> Iterator[int]:
    """Yield the values [operators] of all tensors that live while each operator of a program runs.

    Args:
        inputs: sizes of the program's inputs, which live from its beginning.
        operators: in the order in which they run.
        kept: tensors that something behind the program reads; the last one needs no mention.
    """
    sizes = [*inputs, *(operator.writes for operator in operators)]
    last_use = dict.fromkeys(range(len(inputs)), -1)
    for index, operator in enumerate(operators):
        last_use.update(dict.fromkeys(operator.reads, index))
    last_use.update(dict.fromkeys(kept, len(operators)))
    live = {tensor for tensor in range(len(inputs)) if last_use[tensor] >= 0}
    for index in range(len(operators)):
        live.add(len(inputs) + index)
        yield sum(sizes[tensor] for tensor in live)
        live = {tensor for tensor in live if last_use.get(tensor, index + 1) > index}


def block_operators(signature: BlockSignature) -> list[Operator]:
    """The operators of a block in order; tensor 0 is its input, and 1 the second one of an ``add``."""
    s = signature
    m, o = s.mid_channels, s.out_channels
    inside = s.height * s.width
    outside = -(-s.height // s.stride) * -(-s.width // s.stride)
    if s.kind == "add":
        return [Operator((0, 1), o * outside)]
    if s.kind == "head":
        return [Operator((0,), m * inside), Operator((1,), m), Operator((2,), o)]
    if s.kind == "transform":
        pool = [Operator((0,), s.in_channels * outside)] if s.stride > 1 else []
        return [*pool, Operator((len(pool),), o * outside)]  # a convolution with BN, or BN alone
    if s.kind != "mbconv":
        return [Operator((0,), o if s.kind == "classifier" else o * outside)]
    operators = [Operator((0,), m * inside)] if s.expands else []
    operators.append(Operator((len(operators),), m * outside))
    if s.se:
        middle = len(operators)
        operators += [
            Operator((middle,), m),
            Operator((middle + 1,), s.se_channels),
            Operator((middle + 2,), m),
            Operator((middle, middle + 3), m * outside),
        ]
    operators.append(Operator((len(operators),), o * outside))
    if s.shortcut:
        operators.append(Operator((0, len(operators)), o * outside))
    return operators


def input_values(signature: BlockSignature) -> int:
    """Size of one input of a block, for one image."""
    size = 1
    for axis in signature.input_shape:
        size *= axis
    return size


def peak_values(signature: BlockSignature, *, keep_input: bool) -> int:
    """The most values that live while the block runs alone, for one image.

    ``keep_input``: something behind the block reads its input, too.
    """
    inputs = [input_values(signature)] * (2 if signature.kind == "add" else 1)
    return max(live_values(inputs, block_operators(signature), [0] if keep_input else []))


def activation_bytes(signature: BlockSignature) -> int:
    """Return the most that one operator of the block reads and writes, for one image, in bytes of fp32."""
    operators = block_operators(signature)
    sizes = [input_values(signature)] * (2 if signature.kind == "add" else 1)
    sizes += [operator.writes for operator in operators]
    return _FLOAT_BYTES * max(sum(sizes[t] for t in op.reads) + op.writes for op in operators)
