"""Latency of blocks and of whole networks, looked up in a table and calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nat2deploy.cost.block_values import BlockValues
from nat2deploy.cost.table import Entry, LatencyTable
from nat2deploy.space.signature import BlockSignature


class BlockMedians(BlockValues):
    """Medians of blocks measured alone."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        super().__init__({key: entry.median_ms for key, entry in entries.items()})

    def median_ms(self, signature: BlockSignature) -> float:
        """Return the block's median in ms.

        Raises:
            UserError: neither it nor a smaller and a larger one was measured.
        """
        return self.value(signature)


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
