"""Memory that a block's activations take."""

from __future__ import annotations

from nat2deploy.space.signature import BlockSignature

_FLOAT_BYTES = 4


def activation_bytes(signature: BlockSignature) -> int:
    """Return the most that one operator of the block reads and writes, for one image, in bytes of fp32.

    Input and output tensors of the hungriest of its convolutions, gates, sums or linear layers; activation
    functions work in place.
    """
    s = signature
    i, m, o = s.in_channels, s.mid_channels, s.out_channels
    inside = s.height * s.width
    outside = -(-s.height // s.stride) * -(-s.width // s.stride)
    if s.kind == "stem":
        sizes = [i * inside + o * outside]
    elif s.kind == "add":
        sizes = [3 * o * outside]
    elif s.kind == "pointwise":
        sizes = [i * inside + o * outside]
    elif s.kind == "transform":
        pooled = [i * (inside + outside)] if s.stride > 1 else []
        sizes = [*pooled, (i + o) * outside]
    elif s.kind == "head":
        sizes = [(i + m) * inside, m * inside + m, m + o]
    elif s.kind == "classifier":
        sizes = [i + o]
    else:
        sizes = [m * inside + m * outside, (m + o) * outside]
        if s.expands:
            sizes.append((i + m) * inside)
        if s.se:
            sizes.append(2 * m * outside + m)
        if s.shortcut:
            sizes.append(3 * o * outside)
    return _FLOAT_BYTES * max(sizes)
