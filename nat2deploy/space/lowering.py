"""From an architecture to block signatures: the one place that knows a network's shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nat2deploy.space.architecture import MAIN, POINTWISE, TRANSFORM, Architecture, Layer
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature, make_divisible


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier, rounded to a multiple of 8."""
    return make_divisible(channels * width)


def stage_channels(space: SearchSpace, width: float) -> tuple[int, ...]:
    """Output channels of the first block and of every stage."""
    return tuple(_channels(space, width, behind) for behind in range(len(space.stages) + 1))


def _channels(space: SearchSpace, width: float, behind: int) -> int:
    """Output channels of a stage (1 first), or of the first block (0)."""
    block = space.stages[behind - 1] if behind else space.first_block
    return scaled(block.channels, width)


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


def layer_signatures(
    space: SearchSpace, resolution: int, width: float, stage: int, position: int, layer: Layer
) -> dict[int, BlockSignature]:
    """The branches (bits) of the layer at a ``position`` (0 first) of a ``stage`` (0 first)."""
    spec = space.stages[stage]
    sizes = stage_sizes(space, resolution)
    first = position == 0
    outside = _channels(space, width, stage + 1)
    inside = _channels(space, width, stage) if first else outside
    size = sizes[stage] if first else sizes[stage + 1]
    stride = spec.stride if first else 1
    act = spec.activation
    blocks = {}
    if layer.branches & MAIN:
        middle = make_divisible(round(inside * layer.expansion))
        blocks[MAIN] = BlockSignature(
            "mbconv", inside, middle, outside, layer.kernel, stride, spec.se, not first, act, size, size
        )
    if layer.branches & POINTWISE:
        blocks[POINTWISE] = BlockSignature(
            "pointwise", inside, outside, outside, 1, stride, False, False, act, size, size
        )
    if layer.branches & TRANSFORM:
        blocks[TRANSFORM] = BlockSignature(
            "transform", inside, outside, outside, stride, stride, False, False, act, size, size
        )
    return blocks


def added(position: int) -> range:
    """The outputs of a stage that dense skips add behind the layer at ``position`` (0 first).

    With y1, y2, ... the layers' outputs, what follows the d-th layer sees y_d + y_1 + ... + y_(d-2) (OFAv2).
    """
    return range(max(0, position - 1))


def sum_signature(space: SearchSpace, resolution: int, width: float, stage: int) -> BlockSignature:
    """One sum of two tensors of the shape of a stage's outputs."""
    channels = _channels(space, width, stage + 1)
    size = stage_sizes(space, resolution)[stage + 1]
    return BlockSignature("add", channels, channels, channels, 1, 1, False, False, "none", size, size)


def head_signatures(
    space: SearchSpace, resolution: int, width: float, classes: int, stage: int
) -> tuple[BlockSignature, BlockSignature]:
    """An exit behind a stage (1 first): 1×1 convolutions around the global pool, and the classifier."""
    base = space.stages[stage - 1].channels
    mid = scaled(base * space.head.expansion, width)
    features = scaled(base * space.head.features, width)
    size = stage_sizes(space, resolution)[stage]
    inside = _channels(space, width, stage)
    act = space.head.activation
    return (
        BlockSignature("head", inside, mid, features, 1, 1, False, False, act, size, size),
        classifier_signature(features, classes),
    )


def classifier_signature(features: int, classes: int) -> BlockSignature:
    """A linear layer from ``features`` to ``classes``."""
    return BlockSignature("classifier", features, features, classes, 1, 1, False, False, "none", 1, 1)


@dataclass(frozen=True)
class NetworkPlan:
    """Which blocks a sub-network has, and how they hang together.

    ``stages`` holds each layer's branches (bits), whose outputs are summed; ``exits`` each exit's head and
    classifier by its stage (1 first). ``sums`` are the additions between blocks: of branches, and of dense
    skips (``dense``).
    """

    stem: tuple[BlockSignature, ...]
    stages: tuple[tuple[dict[int, BlockSignature], ...], ...]
    exits: dict[int, tuple[BlockSignature, BlockSignature]]
    dense: bool
    sums: tuple[BlockSignature, ...]

    @property
    def blocks(self) -> list[BlockSignature]:
        """Every block that is a module, in order: stem, first block, layers, exits."""
        layers = [block for stage in self.stages for layer in stage for block in layer.values()]
        exits = [block for exit_ in self.exits.values() for block in exit_]
        return [*self.stem, *layers, *exits]

    @property
    def signatures(self) -> list[BlockSignature]:
        """Everything that costs something: the blocks, and the sums between them."""
        return [*self.blocks, *self.sums]


def plan_network(space: SearchSpace, architecture: Architecture, classes: int) -> NetworkPlan:
    """Lower a sub-network to its blocks."""
    r, w = architecture.resolution, architecture.width
    stages, sums = [], []
    for stage, chosen in enumerate(architecture.stages):
        layers = []
        for position, layer in enumerate(chosen):
            layers.append(layer_signatures(space, r, w, stage, position, layer))
            count = len(layers[-1]) - 1 + (len(added(position)) if space.dense_skips else 0)
            sums += [sum_signature(space, r, w, stage)] * count
        stages.append(tuple(layers))
    return NetworkPlan(
        stem=tuple(stem_signatures(space, r, w)),
        stages=tuple(stages),
        exits={stage: head_signatures(space, r, w, classes, stage) for stage in architecture.exits},
        dense=space.dense_skips,
        sums=tuple(sums),
    )


def lower(space: SearchSpace, architecture: Architecture, classes: int) -> list[BlockSignature]:
    """Everything of a sub-network that costs something: its blocks in order, and the sums between them."""
    return plan_network(space, architecture, classes).signatures


def every_signature(space: SearchSpace, classes: tuple[int, ...]) -> Iterator[BlockSignature]:
    """Each distinct block that some architecture of the space lowers to, once, in a fixed order."""
    seen: dict[BlockSignature, None] = {}
    summed = space.parallel_branches or (space.dense_skips and space.max_depth > 2)
    branches = space.branch_states[-1]
    for resolution in space.resolutions:
        for width in space.widths:
            seen.update(dict.fromkeys(stem_signatures(space, resolution, width)))
            for stage in range(len(space.stages)):
                for position in range(min(space.max_depth, 2)):
                    for kernel in space.kernels:
                        for expansion in space.expansions:
                            layer = Layer(kernel, expansion, branches)
                            blocks = layer_signatures(space, resolution, width, stage, position, layer)
                            seen.update(dict.fromkeys(blocks.values()))
                if summed:
                    seen[sum_signature(space, resolution, width, stage)] = None
            for stage in space.exit_stages:
                for count in classes:
                    seen.update(dict.fromkeys(head_signatures(space, resolution, width, count, stage)))
    return iter(seen)


def total_macs(signatures: list[BlockSignature]) -> int:
    """Multiply-accumulates of a network for one image."""
    return sum(signature.macs for signature in signatures)


def total_params(signatures: list[BlockSignature]) -> int:
    """Learnable parameters of a network."""
    return sum(signature.params for signature in signatures)
