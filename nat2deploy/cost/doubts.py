"""What a reader of a latency table should know before trusting it, in words."""

from __future__ import annotations

from collections.abc import Iterable

from nat2deploy.cost.table import LatencyTable

NOTABLE_DRIFT = 0.05
"""Relative drift of the reference workload above which it is worth a line."""


def doubts(table: LatencyTable) -> list[str]:
    """Say what was wrong with a table's measurement, a line each; nothing where all went well."""
    clock = [f"the processor's clock did not stay the same: {change}" for change in table.clock_changes]
    return [*clock, *measuring_doubts(table)]


def measuring_doubts(table: LatencyTable) -> list[str]:
    """The doubts that the measurements themselves raise, without what the system said of its clock."""
    found = []
    unsettled = [
        words
        for words in (
            _unsettled("blocks", (entry.converged for entry in table.entries.values())),
            _unsettled("networks", (network.converged for network in table.networks)),
        )
        if words
    ]
    if unsettled:
        found.append(
            f"{' and '.join(unsettled)} did not settle within the time: their medians are less exact than "
            "was asked for"
        )
    if table.drift > NOTABLE_DRIFT:
        found.append(
            f"the machine's speed drifted: a fixed workload was up to {table.drift:.1%} off its median "
            "meanwhile"
        )
    return found


def _unsettled(what: str, converged: Iterable[bool | None]) -> str:
    known = [one for one in converged if one is not None]
    missed = known.count(False)
    return f"{missed} of {len(known)} {what}" if missed else ""
