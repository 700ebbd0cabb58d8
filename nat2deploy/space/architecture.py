"""One choice from a search space: a sub-network's architecture, canonical and hashable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from nat2deploy.precision import Precision

MAIN, POINTWISE, TRANSFORM = 1, 2, 4
"""The branches of a layer as bits: the inverted residual, and OFAv2's two static ones beside it."""


class Layer(NamedTuple):
    """The elastic choices of one layer: the inverted residual's, and which branches are summed (bits)."""

    kernel: int
    expansion: float
    branches: int = MAIN


_NO_RESIDUAL = (0, 0.0)


@dataclass(frozen=True)
class Architecture:
    """A sub-network: resolution in pixels, width multiplier, the layers of each stage, and its exits.

    Canonical by construction, so that two encodings of the same network are equal: only stages and
    layers that run are held (a stage's depth is the length of its tuple), a layer without the inverted
    residual has kernel and expansion 0, and the last stage always ends in an exit. ``exits`` are the
    stages, counted from 1, behind which a classifier stands; by default the last one alone. ``precision`` is
    the number format that it runs in where that was chosen, too; None where the target alone says it.

    Raises:
        ValueError: exits that are not ascending or do not end with the last stage.
    """

    resolution: int
    width: float
    stages: tuple[tuple[Layer, ...], ...]
    exits: tuple[int, ...] = ()
    precision: Precision | None = None

    def __post_init__(self) -> None:
        exits = self.exits or (len(self.stages),)
        if list(exits) != sorted(set(exits)) or exits[0] < 1 or exits[-1] != len(self.stages):
            raise ValueError(
                f"exits {exits} must be ascending and end with the last of {len(self.stages)} stages"
            )
        stages = tuple(tuple(_canonical(layer) for layer in stage) for stage in self.stages)
        object.__setattr__(self, "exits", exits)
        object.__setattr__(self, "stages", stages)

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers of each stage."""
        return tuple(len(stage) for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """The dictionary that Once-For-All and NAT publish: one ``ks`` and ``e`` a present layer.

        ``b`` (branches), ``exits`` and ``precision`` stand beside them only where they say something: a layer
        with more or less than the inverted residual, several exits, a precision that was chosen.
        """
        layers = [layer for stage in self.stages for layer in stage]
        value: dict[str, Any] = {
            "ks": [layer.kernel for layer in layers],
            "e": [_plain(layer.expansion) for layer in layers],
            "d": list(self.depths),
            "r": self.resolution,
            "w": float(self.width),
        }
        if any(layer.branches != MAIN for layer in layers):
            value["b"] = [layer.branches for layer in layers]
        if len(self.exits) > 1:
            value["exits"] = list(self.exits)
        if self.precision is not None:
            value["precision"] = self.precision
        return value

    @cached_property
    def id(self) -> str:
        """A stable name: ten hexadecimal digits of the hash of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def __str__(self) -> str:
        """Short and readable: resolution, width, kernel×expansion (and static branches) of each layer.

        Behind them several exits, and a precision that was chosen.
        """
        stages = " ".join(".".join(map(_short, stage)) for stage in self.stages)
        exits = "" if len(self.exits) == 1 else f" exits {','.join(map(str, self.exits))}"
        precision = "" if self.precision is None else f" {self.precision}"
        return f"r{self.resolution} w{self.width:g} {stages}{exits}{precision}"


def _canonical(layer: Layer) -> Layer:
    return layer if layer.branches & MAIN else Layer(*_NO_RESIDUAL, layer.branches)


def _short(layer: Layer) -> str:
    residual = f"{layer.kernel}{_plain(layer.expansion)}" if layer.branches & MAIN else ""
    return residual + "p" * bool(layer.branches & POINTWISE) + "t" * bool(layer.branches & TRANSFORM)


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number
