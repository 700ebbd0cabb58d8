"""Several tables of one target and machine, made one: more resolutions, widths or networks."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from nat2deploy.cost.fitting import fit_table
from nat2deploy.cost.measured import MeasuredLatency
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import Entry, LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import SearchSpace

_FEWEST_SHARED = 3


def merge_tables(tables: Sequence[LatencyTable], space: SearchSpace) -> tuple[LatencyTable, str]:
    """Merge tables of one space, target and machine; returns the table, and why it has no certificate if so.

    The clock frequency differs from one session to the next, so each table is put on the first one's scale by
    the blocks that it shares with those before it. A block that several hold keeps its narrowest confidence
    interval, and so does a network. Calibration, tail and certificate are made anew from the networks of all;
    there is no certificate where one of them was too noisy for one.

    Args:
        tables: two or more.
        space: all of theirs; it is cut to the resolutions and widths that they hold together.

    Raises:
        UserError: tables that do not go together, too few shared blocks to find the scale by, no networks to
            calibrate on, or a resolution that none holds at one of the widths.
    """
    if len(tables) < 2:
        raise UserError("merging needs two tables or more; name another one")
    first = tables[0]
    entries = dict(first.entries)
    networks = list(first.networks)
    for table in tables[1:]:
        _check_alike(first, table)
        factor = _scale(entries, table)
        for key, entry in table.entries.items():
            entries[key] = _sharper(entries.get(key), entry.scaled(factor))
        networks += [network.scaled(factor) for network in table.networks]
    merged = first.model_copy(
        update={
            "resolutions": tuple(sorted({r for table in tables for r in table.resolutions})),
            "widths": tuple(sorted({w for table in tables for w in table.widths})),
            "created": max(table.created for table in tables),
            "noise_floor": max(table.noise_floor for table in tables),
            "drift": max(table.drift for table in tables),
            "elapsed_s": sum(table.elapsed_s for table in tables),
            "entries": entries,
            "networks": _distinct(networks),
            "clock_changes": tuple(dict.fromkeys(change for t in tables for change in t.clock_changes)),
            "energy": " | ".join(dict.fromkeys(t.energy for t in tables if t.energy)) or None,
        }
    )
    covered = space.restrict(resolutions=merged.resolutions, widths=merged.widths)
    merged.check_fingerprint(covered)
    _check_grid(tables, covered)
    if not any(network.role == "calibration" for network in networks):
        raise UserError("the tables hold no networks to calibrate on; profile them again with this version")
    overheads = [t.calibration.call_overhead_ms for t in tables if t.calibration is not None]
    return fit_table(
        merged, covered, call_overhead_ms=float(np.median(overheads or [0.0])), noise=_noise(tables)
    )


def _noise(tables: Sequence[LatencyTable]) -> float | None:
    """The largest noise of held-out networks, None where a table that brings some does not know its own."""
    noises = [t.noise_of_networks() for t in tables if any(n.role == "held-out" for n in t.networks)]
    known = [noise for noise in noises if noise is not None]
    return max(known, default=0.0) if len(known) == len(noises) else None


def _check_alike(first: LatencyTable, other: LatencyTable) -> None:
    for what, one, two in (
        ("spaces", first.space_fingerprint, other.space_fingerprint),
        ("targets", str(first.target), str(other.target)),
        ("library versions", first.fingerprint.libraries, other.fingerprint.libraries),
    ):
        if one != two:
            raise UserError(f"the tables are of different {what} ({one} and {two}); they cannot be merged")
    if not first.fingerprint.same_machine(other.fingerprint):
        raise UserError(
            f"the tables are of different machines ({first.fingerprint} and {other.fingerprint}); "
            "they cannot be merged"
        )


def _scale(entries: dict[str, Entry], table: LatencyTable) -> float:
    """How many times as slow a table's blocks would be in the session of ``entries``."""
    ratios = [entries[key].median_ms / e.median_ms for key, e in table.entries.items() if key in entries]
    if len(ratios) < _FEWEST_SHARED:
        raise UserError(
            f"the tables share {len(ratios)} blocks, too few to put them on one scale; profile with a "
            "resolution in common, or all at once"
        )
    return float(np.median(ratios))


def _sharper(held: Entry | None, new: Entry) -> Entry:
    if held is None:
        return new
    best, other = sorted((held, new), key=_width)
    if best.energy_mj is None:
        return best.model_copy(update={"energy_mj": other.energy_mj})
    return best


def _width(measured: MeasuredLatency) -> float:
    return (measured.ci_high_ms - measured.ci_low_ms) / measured.median_ms


def _distinct(networks: Sequence[NetworkEntry]) -> tuple[NetworkEntry, ...]:
    """Each network once, the sharper measurement of it.

    What one table calibrates on is held out by none: a certificate is of networks never seen.
    """
    found: dict[tuple[str, int], NetworkEntry] = {}
    for network in networks:
        name = json.dumps(network.architecture, sort_keys=True), network.classes
        held = found.get(name)
        if held is None or _rank(network) < _rank(held):
            found[name] = network
    return tuple(found.values())


def _rank(network: NetworkEntry) -> tuple[bool, float]:
    return network.role == "held-out", _width(network)


def _check_grid(tables: Sequence[LatencyTable], space: SearchSpace) -> None:
    """Tables of other resolutions and other widths leave holes: find them now, not in a search."""
    for resolution in space.resolutions:
        for width in space.widths:
            if not any(resolution in table.resolutions and width in table.widths for table in tables):
                raise UserError(
                    f"no table has {resolution} pixels at width {width:g}, which the merged one would "
                    "promise; profile it too"
                )
