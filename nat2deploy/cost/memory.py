"""Peak activation memory: the most that the tensors of a network take at once while it runs.

A network is its extracted module's operators in their order; its input image counts while it is needed, and
so does each output that dense skips or other branches read again, and the logits of exits passed. As a
maximum over operators and no sum over blocks it is looked up in a way of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nat2deploy.cost.activations import Operator, block_operators, input_values, live_values, peak_values
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding
from nat2deploy.space.lowering import (
    NetworkPlan,
    added,
    head_signatures,
    layer_signatures,
    stem_signatures,
    sum_signature,
)
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature

Ints = NDArray[np.int64]
_peak = cache(peak_values)


def network_peak_values(plan: NetworkPlan) -> int:
    """The most values that live while a network runs, for one image."""
    sizes = [input_values(plan.stem[0])]
    operators: list[Operator] = []

    def write(reads: tuple[int, ...], size: int) -> int:
        operators.append(Operator(reads, size))
        sizes.append(size)
        return len(operators)

    def run(block: BlockSignature, x: int) -> int:
        behind = len(operators)  # what the block writes comes after everything that is there
        for operator in block_operators(block):
            write(tuple(t + behind if t > 0 else x for t in operator.reads), operator.writes)
        return len(operators)

    x = 0
    for block in plan.stem:
        x = run(block, x)
    logits = []
    for number, layers in enumerate(plan.stages, start=1):
        outputs: list[int] = []
        for position, layer in enumerate(layers):
            first, *others = layer.values()
            y = run(first, x)
            for branch in others:
                y = write((y, run(branch, x)), sizes[y])
            x = y
            outputs.append(x)
            if plan.dense:
                for earlier in added(position):
                    x = write((x, outputs[earlier]), sizes[x])
        if number in plan.exits:
            head, classifier = plan.exits[number]
            logits.append(run(classifier, run(head, x)))
    if len(logits) > 1:  # their weighted sum
        total = write((logits[0],), sizes[logits[0]])
        for other in logits[1:]:
            total = write((total, write((other,), sizes[other])), sizes[total])
    return max(live_values(sizes[:1], operators))


class _Skips(NamedTuple):
    """What dense skips hold in a stage, beside one of its layers."""

    keeps_input: bool
    held: int
    """Outputs of the stage that live while the layer runs, its own input and output apart."""
    summing: int
    """The most that live during the sums behind the layer."""


@cache
def _dense_skips(depth: int) -> list[_Skips]:
    """Follow the outputs of a stage of so many layers, each of size 1."""
    operators: list[Operator] = []
    outputs, places = [], []
    x = 0
    for position in range(depth):
        places.append(len(operators))
        operators.append(Operator((x,), 1))
        x = len(operators)
        outputs.append(x)
        for earlier in added(position):
            operators.append(Operator((x, outputs[earlier]), 1))
            x = len(operators)
    live = list(live_values([0], operators))
    found = []
    for place, end in zip(places, [*places[1:], len(operators)], strict=True):
        (read,) = operators[place].reads
        keeps = any(read in later.reads for later in operators[place + 1 :])
        found.append(_Skips(keeps, live[place] - 1 - (read > 0), max(live[place + 1 : end], default=0)))
    return found


class PeakMemory:
    """Peaks of a space's architectures, in values for one image, looked up by genes."""

    def __init__(self, space: SearchSpace, classes: int) -> None:
        self.space = space
        self.classes = classes

    def values(self, genes: Genes, encoding: IntegerEncoding) -> Ints:
        """Return the peaks [N] of canonical genes [N, G]."""
        resolution, width, exits = genes[:, 0], genes[:, 1], encoding.exit_index(genes)
        codes = genes[:, encoding.first_layer :]
        depth = np.repeat((encoding.layers(genes) > 0).sum(-1), self.space.max_depth, axis=1)
        positions = np.arange(codes.shape[1])
        layers = self._layers[resolution[:, None], width[:, None], positions, depth, codes]
        logits = np.repeat(self._logits[exits], self.space.max_depth, axis=1)
        running = np.where(codes > 0, layers + logits, 0).max(axis=1)
        peaks: Ints = np.maximum(self._base[resolution, width, exits], running)
        return peaks

    def cheapest(self, encoding: IntegerEncoding) -> Architecture:
        """Return the architecture of the whole space with the lowest peak.

        Exact because layers of one stage depend on each other by its depth alone: for each depth the highest
        of the positions' cheapest choices, then the cheapest depth of each stage, then the cheapest of the
        rest.
        """
        space = self.space
        present = self._layers[..., 1:]
        shape = (*present.shape[:2], len(space.stages), space.max_depth, space.max_depth + 1)
        code = 1 + present.argmin(-1).reshape(shape)
        # Positions behind a depth hold 0, so that the maximum is over those that run.
        by_depth = present.min(-1).reshape(shape).max(-2)[..., list(space.depths)]
        stages = by_depth.min(-1)  # [resolution, width, stage]
        last = np.array([exits[-1] for exits in space.exit_states])
        runs = np.arange(len(space.stages)) < last[:, None]
        running = np.where(runs, stages[:, :, None, :] + self._logits, 0).max(-1)
        total = np.maximum(self._base, running)
        r, w, exits = np.unravel_index(int(total.argmin()), total.shape)
        layers = np.zeros((len(space.stages), space.max_depth), dtype=np.int64)
        for stage, choice in enumerate(by_depth[r, w].argmin(-1)):
            depth = space.depths[int(choice)]
            layers[stage, :depth] = code[r, w, stage, :depth, depth]
        head = np.array([r, w, exits][: encoding.first_layer], dtype=np.int64)
        return encoding.decode(np.concatenate([head, layers.ravel()]))

    @cached_property
    def _logits(self) -> Ints:
        """Values of the logits that live while a stage runs [exits, stage]."""
        stages = range(1, len(self.space.stages) + 1)
        passed = [[sum(e < stage for e in exits) for stage in stages] for exits in self.space.exit_states]
        return self.classes * np.array(passed, dtype=np.int64)

    @cached_property
    def _base(self) -> Ints:
        """The highest peak beside the layers [resolution, width, exits]."""
        space = self.space
        base = np.zeros((len(space.resolutions), len(space.widths), len(space.exit_states)), np.int64)
        for r, resolution in enumerate(space.resolutions):
            for w, width in enumerate(space.widths):
                stem = max(_peak(s, keep_input=False) for s in stem_signatures(space, resolution, width))
                for e, exits in enumerate(space.exit_states):
                    heads = [self._head(resolution, width, exits, stage) for stage in exits]
                    mixing = (len(exits) + 1) * self.classes if len(exits) > 1 else 0
                    base[r, w, e] = max(stem, *heads, mixing)
        return base

    def _head(self, resolution: int, width: float, exits: Sequence[int], stage: int) -> int:
        head, classifier = head_signatures(self.space, resolution, width, self.classes, stage)
        goes_on = stage < exits[-1]
        logits = exits.index(stage) * self.classes
        kept = input_values(head) if goes_on else 0
        return logits + max(_peak(head, keep_input=goes_on), kept + _peak(classifier, keep_input=False))

    @cached_property
    def _layers(self) -> Ints:
        """Peaks of each layer and the sums behind it [resolution, width, position, depth, code]."""
        space = self.space
        encoding = IntegerEncoding(space)
        depths = space.max_depth + 1
        shape = (len(space.stages), space.max_depth, depths, encoding.states)
        layers = np.zeros((len(space.resolutions), len(space.widths), *shape), np.int64)
        for r, resolution in enumerate(space.resolutions):
            for w, width in enumerate(space.widths):
                for stage in range(len(space.stages)):
                    alone = self._alone(encoding, resolution, width, stage)
                    one = input_values(sum_signature(space, resolution, width, stage))
                    for depth in space.depths:
                        skips = _dense_skips(depth) if space.dense_skips else [_Skips(False, 0, 0)] * depth
                        for position, skip in enumerate(skips):
                            layer = alone[min(position, 1), int(skip.keeps_input)] + skip.held * one
                            layers[r, w, stage, position, depth, 1:] = np.maximum(layer, skip.summing * one)
        return layers.reshape(*layers.shape[:2], -1, depths, encoding.states)

    def _alone(self, encoding: IntegerEncoding, resolution: int, width: float, stage: int) -> Ints:
        """Peaks of a stage's first and later layers by themselves [first or later, input kept, code - 1]."""
        peaks = np.zeros((2, 2, encoding.states - 1), np.int64)
        one = input_values(sum_signature(self.space, resolution, width, stage))
        for position in range(min(self.space.max_depth, 2)):
            for code in range(1, encoding.states):
                layer = encoding.layer(code)
                blocks = list(
                    layer_signatures(self.space, resolution, width, stage, position, layer).values()
                )
                for keeps in (False, True):
                    peaks[position, int(keeps), code - 1] = _layer_peak(blocks, keeps, one)
        return peaks


def _layer_peak(branches: Sequence[BlockSignature], keeps_input: bool, output: int) -> int:
    """The peak of a layer whose branches run one after the other, each added to the sum of those before."""
    peak = 0
    for index, branch in enumerate(branches):
        keeps = keeps_input or index < len(branches) - 1
        before = output if index else 0
        peak = max(peak, before + _peak(branch, keep_input=keeps))
        if index:
            peak = max(peak, 3 * output + (input_values(branch) if keeps else 0))
    return peak
