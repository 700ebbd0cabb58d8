"""One choice from a search space: a sub-network's architecture, canonical and hashable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple


class Layer(NamedTuple):
    """The elastic choices of one inverted-residual layer."""

    kernel: int
    expansion: float


@dataclass(frozen=True)
class Architecture:
    """A sub-network: resolution in pixels, width multiplier, and the layers of each stage.

    Canonical by construction: only layers that exist are held (a stage's depth is the length of its
    tuple), so two encodings of the same network are equal.
    """

    resolution: int
    width: float
    stages: tuple[tuple[Layer, ...], ...]

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers of each stage."""
        return tuple(len(stage) for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """The dictionary that Once-For-All and NAT publish: one ``ks`` and ``e`` a present layer."""
        layers = [layer for stage in self.stages for layer in stage]
        return {
            "ks": [layer.kernel for layer in layers],
            "e": [_plain(layer.expansion) for layer in layers],
            "d": list(self.depths),
            "r": self.resolution,
            "w": float(self.width),
        }

    @cached_property
    def id(self) -> str:
        """A stable name: ten hexadecimal digits of the hash of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def __str__(self) -> str:
        """Short and readable: resolution, width, and kernel×expansion of each stage's layers."""
        stages = " ".join("".join(f"{k}{_plain(e)}." for k, e in stage)[:-1] for stage in self.stages)
        return f"r{self.resolution} w{self.width:g} {stages}"


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number
