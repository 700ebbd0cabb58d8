"""From an architecture to block signatures: the one place that knows a network's shape."""

from __future__ import annotations

from collections.abc import Iterator

from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature, make_divisible


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier, rounded to a multiple of 8."""
    return make_divisible(channels * width)


def stage_channels(space: SearchSpace, width: float) -> tuple[int, ...]:
    """Output channels of the first block and of every stage."""
    base = (space.first_block.channels, *(stage.channels for stage in space.stages))
    return tuple(scaled(channels, width) for channels in base)


def stage_sizes(space: SearchSpace, resolution: int) -> tuple[int, ...]:
    """Input height (and width) in pixels of every stage, then of the head."""
    sizes = [_strided(resolution, space.stem.stride)]
    for stage in space.stages:
        sizes.append(_strided(sizes[-1], stage.stride))
    return tuple(sizes)


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)


def stem_signatures(space: SearchSpace, resolution: int, width: float) -> list[BlockSignature]:
    """The stem and the fixed first block."""
    stem, first = space.stem, space.first_block
    channels, out = scaled(stem.channels, width), scaled(first.channels, width)
    size = _strided(resolution, stem.stride)
    act = stem.activation
    return [
        BlockSignature(
            "stem", 3, channels, channels, 3, stem.stride, False, False, act, resolution, resolution
        ),
        BlockSignature(
            "mbconv",
            channels,
            channels,
            out,
            first.kernel,
            1,
            False,
            channels == out,
            first.activation,
            size,
            size,
        ),
    ]


def layer_signature(
    space: SearchSpace, resolution: int, width: float, stage: int, position: int, layer: Layer
) -> BlockSignature:
    """The elastic layer at a ``position`` (0 first) of a ``stage`` (0 first)."""
    spec = space.stages[stage]
    channels = stage_channels(space, width)
    sizes = stage_sizes(space, resolution)
    first = position == 0
    inside = channels[stage] if first else channels[stage + 1]
    size = sizes[stage] if first else sizes[stage + 1]
    return BlockSignature(
        "mbconv",
        inside,
        make_divisible(round(inside * layer.expansion)),
        channels[stage + 1],
        layer.kernel,
        spec.stride if first else 1,
        spec.se,
        not first,
        spec.activation,
        size,
        size,
    )


def head_signatures(space: SearchSpace, resolution: int, width: float, classes: int) -> list[BlockSignature]:
    """The final 1×1 convolutions around the global pool, and the classifier."""
    last = space.stages[-1].channels
    mid = scaled(last * space.head.expansion, width)
    features = scaled(last * space.head.features, width)
    size = stage_sizes(space, resolution)[-1]
    inside = stage_channels(space, width)[-1]
    act = space.head.activation
    return [
        BlockSignature("head", inside, mid, features, 1, 1, False, False, act, size, size),
        classifier_signature(features, classes),
    ]


def classifier_signature(features: int, classes: int) -> BlockSignature:
    """A linear layer from ``features`` to ``classes``."""
    return BlockSignature("classifier", features, features, classes, 1, 1, False, False, "none", 1, 1)


def lower(space: SearchSpace, architecture: Architecture, classes: int) -> list[BlockSignature]:
    """Every block of a sub-network in order: stem, first block, layers, head, classifier."""
    r, w = architecture.resolution, architecture.width
    layers = [
        layer_signature(space, r, w, stage, position, layer)
        for stage, chosen in enumerate(architecture.stages)
        for position, layer in enumerate(chosen)
    ]
    return [*stem_signatures(space, r, w), *layers, *head_signatures(space, r, w, classes)]


def every_signature(space: SearchSpace, classes: tuple[int, ...]) -> Iterator[BlockSignature]:
    """Each distinct block that some architecture of the space lowers to, once, in a fixed order."""
    seen: dict[BlockSignature, None] = {}
    for resolution in space.resolutions:
        for width in space.widths:
            seen.update(dict.fromkeys(stem_signatures(space, resolution, width)))
            for stage in range(len(space.stages)):
                for position in range(min(space.max_depth, 2)):
                    for kernel in space.kernels:
                        for expansion in space.expansions:
                            layer = Layer(kernel, expansion)
                            seen[layer_signature(space, resolution, width, stage, position, layer)] = None
            for count in classes:
                seen.update(dict.fromkeys(head_signatures(space, resolution, width, count)))
    return iter(seen)


def total_macs(signatures: list[BlockSignature]) -> int:
    """Multiply-accumulates of a network for one image."""
    return sum(signature.macs for signature in signatures)


def total_params(signatures: list[BlockSignature]) -> int:
    """Learnable parameters of a network."""
    return sum(signature.params for signature in signatures)
