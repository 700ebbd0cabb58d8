"""Architectures from the dictionaries that Once-For-All and NAT publish, and from their gene strings."""

from __future__ import annotations

import json
from typing import Any

from nat2deploy.errors import UserError
from nat2deploy.precision import EVERY_PRECISION, Precision
from nat2deploy.space.architecture import MAIN, Architecture, Layer
from nat2deploy.space.search_space import SearchSpace

_KEYS = {"ks", "e", "d", "r", "w", "b", "exits", "precision"}
_WORDS = "ks, e, d, r, w, b, exits and precision"


def parse_architecture(space: SearchSpace, value: str | dict[str, Any]) -> Architecture:
    """Read ``{"ks": [...], "e": [...], "d": [...], "r": 224, "w": 1.0}``, as JSON text or a dictionary.

    ``ks`` and ``e`` hold one value a present layer, or one a possible layer (20 in Once-For-All) of which
    those of absent layers are ignored; a single number stands for all. ``w`` may be left out where the
    space has one width; ``r`` may be a list of one. Of OFAv2: ``b`` holds branches as bits (1 inverted
    residual, 2 pointwise, 4 transform; 1 when left out; ``ks`` and ``e`` of layers without 1 are ignored),
    ``exits`` the stages with an exit, from 1; by default the last one of ``d``, which may stop early.
    ``precision`` (fp32, fp16, bf16, int8) may stand beside them all.

    Raises:
        UserError: not JSON, a key missing or unknown, a wrong count, or a choice outside the space.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:  # ValueError: a number too long, too
            raise UserError(f"architecture is not JSON ({error}); see `nat2deploy costs --help`") from error
    if not isinstance(value, dict):
        raise UserError('architecture must be a JSON object such as {"ks": .., "e": .., "d": .., "r": 224}')
    unknown = sorted(set(value) - _KEYS)
    if unknown:
        raise UserError(f"architecture: unknown key '{unknown[0]}'; use {_WORDS}")
    given, exits = _stages(space, value)
    for depth in given:
        _choice(space, "d", depth, space.depths)
    depths = [int(depth) for depth in given]
    columns = [_per_layer(value, key, depths, len(space.stages), space.max_depth) for key in ("ks", "e")]
    branches = _per_layer({"b": MAIN, **value}, "b", depths, len(space.stages), space.max_depth)
    layers = iter([_layer(space, *numbers) for numbers in zip(*columns, branches, strict=True)])
    return Architecture(
        int(_single(space, value, "r", space.resolutions)),
        float(_single(space, value, "w", space.widths)),
        tuple(tuple(next(layers) for _ in range(depth)) for depth in depths),
        exits,
        _precision(value),
    )


def _precision(value: dict[str, Any]) -> Precision | None:
    given = value.get("precision")
    for precision in EVERY_PRECISION:
        if given == precision:
            return precision
    if given is None:
        return None
    raise UserError(f"architecture: no precision {str(given)[:40]!r}; use {', '.join(EVERY_PRECISION)}")


def _stages(space: SearchSpace, value: dict[str, Any]) -> tuple[list[float], tuple[int, ...]]:
    """The depths of the stages that run, and the exits."""
    stages = len(space.stages)
    given = _numbers(value, "d", stages)
    wanted = _numbers(value, "exits", 1) if "exits" in value else [float(len(given))]
    for stage in wanted:
        if "exits" in value:
            _choice(space, "exits", stage, space.exit_stages)
    exits = tuple(sorted({int(stage) for stage in wanted}))
    if not exits or not set(exits) <= set(space.exit_stages) or len(given) not in (stages, exits[-1]):
        raise UserError(f"architecture: d has {len(given)} values; the space has {stages} stages")
    return given[: exits[-1]], exits


def _layer(space: SearchSpace, kernel: float, expansion: float, branches: float) -> Layer:
    _choice(space, "b", branches, space.branch_states)
    if int(branches) & MAIN:
        _choice(space, "ks", kernel, space.kernels)
        _choice(space, "e", expansion, space.expansions)
    return Layer(int(kernel), float(expansion), int(branches))


def _numbers(value: dict[str, Any], key: str, repeat: int) -> list[float]:
    if key not in value:
        raise UserError(f"architecture: '{key}' is missing; ks, e, d and r are needed")
    numbers = value[key] if isinstance(value[key], list) else [value[key]] * repeat
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < 1e6:
            raise UserError(f"architecture: {key} holds {str(number)[:40]!r}, which is no usable number")
    return numbers


def _per_layer(
    value: dict[str, Any], key: str, depths: list[int], stages: int, max_depth: int
) -> list[float]:
    present = sum(depths)
    numbers = _numbers(value, key, present)
    if len(numbers) == present:
        return numbers
    possible = stages * max_depth
    if len(numbers) != possible:
        raise UserError(
            f"architecture: {key} has {len(numbers)} values; "
            f"give {present} (one a present layer) or {possible}"
        )
    starts = range(0, possible, max_depth)  # of stages that do not run, too
    return [number for start, d in zip(starts, depths, strict=False) for number in numbers[start : start + d]]


def _single(space: SearchSpace, value: dict[str, Any], key: str, choices: tuple[float, ...]) -> float:
    if key not in value and len(choices) == 1:
        return choices[0]
    numbers = _numbers(value, key, 1)
    if len(numbers) != 1:
        raise UserError(f"architecture: {key} must be one number")
    _choice(space, key, numbers[0], choices)
    return numbers[0]


def _choice(space: SearchSpace, key: str, number: float, choices: tuple[float, ...]) -> None:
    if number not in choices:
        have = ", ".join(f"{choice:g}" for choice in choices)
        raise UserError(f"architecture: {key} {number:g} is not in space '{space.name}'; choose from {have}")
