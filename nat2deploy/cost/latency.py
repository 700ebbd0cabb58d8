"""Latency of blocks and of whole networks, looked up in a table and calibrated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from nat2deploy.cost.input_sizes import without_size, work
from nat2deploy.cost.table import Entry, LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.signature import BlockSignature


class BlockMedians:
    """Medians of blocks measured alone.

    A classifier is measured at a few class counts; between two of them its latency is interpolated linearly,
    above the largest it goes on like between the last two, below the smallest it stays. Any other block may
    be measured at some input sizes only: between two of them its latency is interpolated linearly in its
    operations, and nothing is guessed beyond them.
    """

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._ladders: dict[int, list[tuple[int, float]]] = defaultdict(list)
        sizes: dict[BlockSignature, list[tuple[float, float]]] = defaultdict(list)
        for key, entry in entries.items():
            signature = BlockSignature.parse(key)
            sizes[without_size(signature)].append((work(signature), entry.median_ms))
            if signature.kind == "classifier":
                self._ladders[signature.in_channels].append((signature.out_channels, entry.median_ms))
        for ladder in self._ladders.values():
            ladder.sort()
        self._sizes = {block: sorted(measured) for block, measured in sizes.items() if len(measured) > 1}

    def median_ms(self, signature: BlockSignature) -> float:
        """Return the block's median in ms.

        Raises:
            UserError: neither it nor a smaller and a larger one was measured.
        """
        entry = self._entries.get(signature.key)
        if entry is not None:
            return entry.median_ms
        if signature.kind == "classifier" and signature.in_channels in self._ladders:
            return _interpolate(self._ladders[signature.in_channels], signature.out_channels)
        measured = self._sizes.get(without_size(signature), [])
        if measured and measured[0][0] <= work(signature) <= measured[-1][0]:
            amounts, medians_ms = zip(*measured, strict=True)
            return float(np.interp(work(signature), amounts, medians_ms))
        raise UserError(f"the latency table has no block {signature.key}; profile this space again")


class BlockLatency:
    """Latency of a table's blocks within a network: the medians, corrected by the table's calibration.

    ``intercept_ms`` is what a network costs beside its blocks; without a calibration it is 0 and blocks
    cost their medians.
    """

    def __init__(self, table: LatencyTable) -> None:
        self._medians = BlockMedians(table.entries)
        self._calibration = table.calibration
        self.intercept_ms = 0.0 if table.calibration is None else table.calibration.intercept_ms

    def block_ms(self, signature: BlockSignature) -> float:
        """What the block adds to a network's latency, in ms.

        Raises:
            UserError: it was not measured.
        """
        median_ms = self._medians.median_ms(signature)
        if self._calibration is None:
            return median_ms
        return self._calibration.block_ms(signature, median_ms)

    def network_ms(self, signatures: Sequence[BlockSignature]) -> float:
        """Predict a network's latency in ms.

        Raises:
            UserError: a block was not measured.
        """
        return self.intercept_ms + sum(self.block_ms(signature) for signature in signatures)


def _interpolate(ladder: list[tuple[int, float]], classes: int) -> float:
    counts, medians_ms = zip(*ladder, strict=True)
    if classes <= counts[-1]:
        return float(np.interp(classes, counts, medians_ms))
    if len(ladder) == 1:
        return ladder[0][1]
    slope_ms = (medians_ms[-1] - medians_ms[-2]) / (counts[-1] - counts[-2])
    # Noise can make the last step of a flat ladder fall; nothing gets faster with more classes.
    return float(medians_ms[-1] + max(slope_ms, 0.0) * (classes - counts[-1]))
