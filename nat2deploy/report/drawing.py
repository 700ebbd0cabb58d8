"""An architecture as a drawing: a box a layer, as high as it expands, in the colour of its kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nat2deploy.space.architecture import MAIN, POINTWISE, TRANSFORM
from nat2deploy.space.lowering import stage_channels, stage_sizes
from nat2deploy.space.search_space import SearchSpace

_BOX, _GAP, _BETWEEN = 34, 4, 16
_BASE, _PER_EXPANSION, _TOP = 14, 9, 20
_LETTERS = 6.2
"""Width of a small letter."""


@dataclass(frozen=True)
class Box:
    """A layer's rectangle in the drawing's units, with up to two lines of text."""

    x: float
    y: float
    width: float
    height: float
    style: str
    text: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class Drawing:
    """Boxes, and words under them: (x of the middle, line, text)."""

    width: float
    height: float
    middle: float
    boxes: tuple[Box, ...]
    words: tuple[tuple[float, int, str], ...]
    summary: str


@dataclass(frozen=True)
class _Layer:
    kernel: int
    expansion: float
    branches: int


def draw(architecture: dict[str, Any], space: SearchSpace | None) -> Drawing | None:
    """Lay out an architecture as files hold it; ``space`` adds channels and sizes.

    Returns None for what is no architecture.
    """
    try:
        return _draw(architecture, space)
    except (ArithmeticError, LookupError, StopIteration, TypeError, ValueError):
        return None


def _draw(architecture: dict[str, Any], space: SearchSpace | None) -> Drawing:
    stages = _stages(architecture)
    resolution, width = int(architecture["r"]), float(architecture.get("w", 1.0))
    exits = [int(stage) for stage in architecture.get("exits") or [len(stages)]]
    highest = max((layer.expansion for stage in stages for layer in stage), default=1.0)
    middle = _TOP + (_BASE + _PER_EXPANSION * highest) / 2
    channels = stage_channels(space, width) if space is not None else ()
    sizes = stage_sizes(space, resolution) if space is not None else ()
    boxes: list[Box] = []
    words: list[tuple[float, int, str]] = []

    def add(x: float, height: float, style: str, text: tuple[str, ...], title: str) -> float:
        boxes.append(Box(x, middle - height / 2, _BOX, height, style, text, title))
        return x + _BOX + _GAP

    x = 4.0
    x = add(x, 30, "plain", ("stem",), f"{resolution}x{resolution} pixels, 3 channels") + _BETWEEN
    words.append((x - _BETWEEN - _GAP - _BOX / 2, 0, f"{resolution} px"))
    for index, stage in enumerate(stages):
        begin = x
        for layer in stage:
            height = _BASE + _PER_EXPANSION * layer.expansion
            text = (f"k{layer.kernel}", f"e{layer.expansion:g}") if layer.branches & MAIN else ("-",)
            more = "p" * bool(layer.branches & POINTWISE) + "t" * bool(layer.branches & TRANSFORM)
            style = f"k{layer.kernel}" if layer.branches & MAIN else "plain"
            title = f"stage {index + 1}: kernel {layer.kernel}, expansion {layer.expansion:g}"
            x = add(x, max(height, 30), style, (*text, *([f"+{more}"] if more else [])), title)
        lines = [f"stage {index + 1}"]
        if space is not None and index < len(space.stages):
            lines.append(f"{channels[index + 1]} ch, {sizes[index + 1]} px")
            if space.stages[index].se:
                lines.append("SE")
        needed = max(len(line) for line in lines) * _LETTERS
        x = max(x, begin + needed)
        words += [((begin + x - _GAP) / 2, line, text) for line, text in enumerate(lines)]
        if index + 1 in exits:
            last = index + 1 == len(stages)
            x = add(x + (_BETWEEN if last else 2), 30, "exit", ("head" if last else "exit",), _exit(index))
        x += _BETWEEN
    bottom = _TOP + _BASE + _PER_EXPANSION * highest
    summary = f"{resolution} px, width {width:g}, depths {'-'.join(str(len(s)) for s in stages)}"
    return Drawing(
        x - _BETWEEN + 4, max(bottom, middle + 15) + 48, middle, tuple(boxes), tuple(words), summary
    )


def _exit(stage: int) -> str:
    return f"classifier behind stage {stage + 1}"


def _stages(architecture: dict[str, Any]) -> list[list[_Layer]]:
    depths = [int(depth) for depth in architecture["d"]]
    if not 0 < len(depths) <= 32 or not all(0 <= depth <= 32 for depth in depths):
        raise ValueError("no depths of a network")
    count = sum(depths)
    layers: Iterator[_Layer] = (
        _Layer(int(kernel), min(max(float(expansion), 0.0), 32.0), int(branches))
        for kernel, expansion, branches in zip(
            _column(architecture["ks"], count),
            _column(architecture["e"], count),
            _column(architecture.get("b", MAIN), count),
            strict=True,
        )
    )
    return [[next(layers) for _ in range(depth)] for depth in depths]


def _column(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, list) else [value] * count
