"""Bytes that a network's weights take in a number format."""

from __future__ import annotations

from nat2deploy.space.signature import BlockSignature

VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""What one value takes, of weights or of activations."""

# Of an 8-bit layer, by output channel: the weights' scale (4) and zero point (1); with a bias also that, its
# scale and its zero point (4 each). BN that no convolution takes in: scale (1), shift, mean, variance (4).
_SCALED = 5
_BIASED = 17
_NORMALISED = 13


def weight_bytes(signature: BlockSignature, precision: str) -> int:
    """Return the bytes of a block's weights, as a file holds them.

    In int8 they are those of the quantised ONNX file: 1 byte a weight, and beside each layer's weights what
    its channels need to be scaled, and biases of 4 bytes. The graph that a file also holds, 100 to 200 kB in
    int8, is not counted. In all other formats each parameter takes as much as one value.
    """
    if precision != "int8":
        return VALUE_BYTES[precision] * signature.params
    s = signature
    i, m, o = s.in_channels, s.mid_channels, s.out_channels
    if s.kind == "add":
        return 0
    if s.kind in ("pointwise", "transform"):
        return i * o + _BIASED * o if s.mixes else _NORMALISED * o
    if s.kind == "stem":
        return i * o * s.kernel**2 + _BIASED * o
    if s.kind == "head":
        return i * m + _BIASED * m + m * o + _SCALED * o
    if s.kind == "classifier":
        return i * o + _BIASED * o
    expansion = i * m + _BIASED * m if s.expands else 0
    squeeze = 2 * m * s.se_channels + _BIASED * (s.se_channels + m) if s.se else 0
    return expansion + m * s.kernel**2 + _BIASED * m + squeeze + m * o + _BIASED * o
