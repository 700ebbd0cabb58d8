"""What a latency table says about energy, in words."""

from __future__ import annotations

from nat2deploy.cost.table import LatencyTable


def energy_words(table: LatencyTable) -> str:
    """Say how the energy of a table's blocks was measured, or why it was not."""
    known = sum(entry.energy_mj is not None for entry in table.entries.values())
    why = table.energy or "the table is older than that"
    return f"{known} of {len(table.entries)} blocks: {why}" if known else f"not measured: {why}"
