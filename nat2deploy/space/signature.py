"""What a latency depends on and nothing else: the signature of a block, and its exact counts.

The super-network and the latency table meet here: an architecture lowers to a list of signatures,
plain modules are built from them, and costs are looked up by their keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from nat2deploy.errors import UserError

Kind = Literal["stem", "mbconv", "pointwise", "transform", "add", "head", "classifier"]
Activation = Literal["relu", "hswish", "none"]

# Counts begin without 0, so a block has one key, and stay short enough for any integer.
_N = r"[1-9]\d{0,8}"
_KEY = re.compile(
    rf"(?P<kind>[a-z]+)-i(?P<i>{_N})-m(?P<m>{_N})-o(?P<o>{_N})-k(?P<k>{_N})-s(?P<s>{_N})"
    rf"(?P<se>-se)?(?P<skip>-skip)?-(?P<act>[a-z]+)-h(?P<h>{_N})-w(?P<w>{_N})",
    re.ASCII,
)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of ``divisor``, at most a tenth below ``value`` (MobileNetV3)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True, slots=True)
class BlockSignature:
    """One block at one place of a network.

    Kinds: ``stem`` (convolution, BN, activation); ``mbconv`` (inverted residual: 1×1 to ``mid_channels``
    unless equal to ``in_channels``, depthwise, optional squeeze-and-excite, 1×1); ``pointwise`` (1×1 with
    BN, activation) and ``transform`` (max-pool if strided, 1×1 if the channel count changes, BN,
    activation), OFAv2's static branches beside an ``mbconv``; ``add`` (sum of two tensors); ``head`` (1×1
    to ``mid_channels`` with BN, global pool, 1×1 to ``out_channels`` without BN); ``classifier`` (linear).
    ``height`` and ``width`` are the input's, in pixels.
    """

    kind: Kind
    in_channels: int
    mid_channels: int
    out_channels: int
    kernel: int
    stride: int
    se: bool
    shortcut: bool
    activation: Activation
    height: int
    width: int

    @property
    def key(self) -> str:
        """The text form, such as ``mbconv-i24-m72-o40-k5-s2-se-relu-h28-w28``."""
        flags = ("-se" if self.se else "") + ("-skip" if self.shortcut else "")
        return (
            f"{self.kind}-i{self.in_channels}-m{self.mid_channels}-o{self.out_channels}-k{self.kernel}"
            f"-s{self.stride}{flags}-{self.activation}-h{self.height}-w{self.width}"
        )

    @classmethod
    def parse(cls, key: str) -> BlockSignature:
        """Read a ``key`` back.

        Raises:
            UserError: the text is no signature.
        """
        match = _KEY.fullmatch(key)
        if match is None or match["kind"] not in get_args(Kind) or match["act"] not in get_args(Activation):
            raise UserError(f"'{key[:80]}' is not a block signature; make the table again")
        return cls(
            cast(Kind, match["kind"]),
            int(match["i"]),
            int(match["m"]),
            int(match["o"]),
            int(match["k"]),
            int(match["s"]),
            match["se"] is not None,
            match["skip"] is not None,
            cast(Activation, match["act"]),
            int(match["h"]),
            int(match["w"]),
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch: (C, H, W), or (C,) for a classifier."""
        if self.kind == "classifier":
            return (self.in_channels,)
        return (self.in_channels, self.height, self.width)

    @property
    def se_channels(self) -> int:
        """Channels inside the squeeze-and-excite module: a quarter, rounded to a multiple of 8."""
        return make_divisible(self.mid_channels // 4) if self.se else 0

    @property
    def expands(self) -> bool:
        """Whether an ``mbconv`` begins with a 1×1 expansion."""
        return self.mid_channels != self.in_channels

    @property
    def mixes(self) -> bool:
        """Whether a ``pointwise`` or ``transform`` branch holds a 1×1 convolution."""
        return self.kind == "pointwise" or self.in_channels != self.out_channels

    @property
    def _mixing(self) -> int:
        return self.in_channels * self.out_channels if self.mixes else 0

    @property
    def params(self) -> int:
        """Learnable parameters, BN's scale and shift included."""
        i, m, o = self.in_channels, self.mid_channels, self.out_channels
        if self.kind == "add":
            return 0
        if self.kind in ("pointwise", "transform"):
            return self._mixing + 2 * o
        if self.kind == "stem":
            return i * o * self.kernel**2 + 2 * o
        if self.kind == "head":
            return i * m + 2 * m + m * o
        if self.kind == "classifier":
            return i * o + o
        expansion = i * m + 2 * m if self.expands else 0
        squeeze = 2 * m * self.se_channels + self.se_channels + m if self.se else 0
        return expansion + m * self.kernel**2 + 2 * m + squeeze + m * o + 2 * o

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image (BN folds away)."""
        i, m, o = self.in_channels, self.mid_channels, self.out_channels
        inside = self.height * self.width
        outside = -(-self.height // self.stride) * -(-self.width // self.stride)
        if self.kind == "add":
            return 0
        if self.kind in ("pointwise", "transform"):
            return self._mixing * outside
        if self.kind == "stem":
            return i * o * self.kernel**2 * outside
        if self.kind == "head":
            return i * m * inside + m * o
        if self.kind == "classifier":
            return i * o
        expansion = i * m * inside if self.expands else 0
        squeeze = 2 * m * self.se_channels if self.se else 0
        return expansion + m * self.kernel**2 * outside + squeeze + m * o * outside
