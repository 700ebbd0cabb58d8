"""Measured figures of blocks, and what is known between those that were measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from nat2deploy.cost.input_sizes import without_size, work
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.signature import BlockSignature


class BlockValues:
    """One measured figure of blocks, such as their median latency or energy.

    A classifier is measured at a few class counts; between two of them its figure is interpolated linearly,
    above the largest it goes on like between the last two, below the smallest it stays. Any other block may
    be measured at some input sizes only: between two of them its figure is interpolated linearly in its
    operations, and nothing is guessed beyond them.
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values
        self._ladders: dict[int, list[tuple[int, float]]] = defaultdict(list)
        sizes: dict[BlockSignature, list[tuple[float, float]]] = defaultdict(list)
        for key, value in values.items():
            signature = BlockSignature.parse(key)
            sizes[without_size(signature)].append((work(signature), value))
            if signature.kind == "classifier":
                self._ladders[signature.in_channels].append((signature.out_channels, value))
        for ladder in self._ladders.values():
            ladder.sort()
        self._sizes = {block: sorted(measured) for block, measured in sizes.items() if len(measured) > 1}

    def value(self, signature: BlockSignature) -> float:
        """Return the block's figure.

        Raises:
            UserError: neither it nor a smaller and a larger one was measured.
        """
        value = self._values.get(signature.key)
        if value is not None:
            return value
        if signature.kind == "classifier" and signature.in_channels in self._ladders:
            return _interpolate(self._ladders[signature.in_channels], signature.out_channels)
        measured = self._sizes.get(without_size(signature), [])
        if measured and measured[0][0] <= work(signature) <= measured[-1][0]:
            amounts, values = zip(*measured, strict=True)
            return float(np.interp(work(signature), amounts, values))
        raise UserError(f"the latency table has no block {signature.key}; profile this space again")


def block_energies(table: LatencyTable) -> BlockValues | None:
    """Return the energies of a table's blocks, in mJ a run of the target's batch; None unless all have one.

    A network's energy is their plain sum, which nothing corrects.
    """
    known = {key: entry.energy_mj for key, entry in table.entries.items() if entry.energy_mj is not None}
    return BlockValues(known) if len(known) == len(table.entries) else None


def _interpolate(ladder: list[tuple[int, float]], classes: int) -> float:
    counts, values = zip(*ladder, strict=True)
    if classes <= counts[-1]:
        return float(np.interp(classes, counts, values))
    if len(ladder) == 1:
        return ladder[0][1]
    slope = (values[-1] - values[-2]) / (counts[-1] - counts[-2])
    # Noise can make the last step of a flat ladder fall; nothing gets cheaper with more classes.
    return float(values[-1] + max(slope, 0.0) * (classes - counts[-1]))
