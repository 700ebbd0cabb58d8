"""Several tables of one target and machine, made one: more resolutions, widths or networks."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from nat2deploy.cost.calibration import FEWEST_NETWORKS
from nat2deploy.cost.fitting import fit_table
from nat2deploy.cost.latency import BlockLatency
from nat2deploy.cost.measured import MeasuredLatency
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import Entry, LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import SearchSpace

_FEWEST_SHARED = 3
_PREDICTED, _CLASSES = 200, 10


def merge_tables(tables: Sequence[LatencyTable], space: SearchSpace) -> tuple[LatencyTable, str]:
    """Merge tables of one space, target and machine; returns the table, and why it has no certificate if so.

    The clock frequency differs from one session to the next, so each table is put on the first one's scale by
    the blocks that it shares with those before it, and its networks, which were measured after its blocks, by
    a factor of their own. A block that several hold keeps its narrowest confidence
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
    for index, table in enumerate(tables[1:], 1):
        _check_alike(first, table)
        factor = _scale(entries, table)
        held = first.model_copy(update={"entries": entries, "networks": _distinct(networks)})
        networks_factor = factor * _own_scale(held, table, factor, tables[:index], space)
        for key, entry in table.entries.items():
            entries[key] = _sharper(entries.get(key), entry.scaled(factor))
        networks += [network.scaled(networks_factor) for network in table.networks]
    merged = first.model_copy(
        update={
            "resolutions": tuple(sorted({r for table in tables for r in table.resolutions})),
            "widths": tuple(sorted({w for table in tables for w in table.widths})),
            "created": max(table.created for table in tables),
            "noise_floor": max(table.noise_floor for table in tables),
            "drift": max(table.drift for table in tables),
            "elapsed_s": sum(table.elapsed_s for table in tables),
            "warmup_ms": max(table.warmup_ms for table in tables),
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
        one, two = first.fingerprint.told_apart(other.fingerprint)
        raise UserError(f"the tables are of different machines ({one}; and {two}); they cannot be merged")


def _scale(entries: dict[str, Entry], table: LatencyTable) -> float:
    """How many times as slow a table's blocks would be in the session of ``entries``."""
    ratios = [entries[key].median_ms / e.median_ms for key, e in table.entries.items() if key in entries]
    if len(ratios) < _FEWEST_SHARED:
        raise UserError(
            f"the tables share {len(ratios)} blocks, too few to put them on one scale; profile with a "
            "resolution in common, or all at once"
        )
    return float(np.median(ratios))


def _own_scale(
    held: LatencyTable, table: LatencyTable, factor: float, before: Sequence[LatencyTable], space: SearchSpace
) -> float:
    """What a table's networks are scaled by beside ``factor``, that of its blocks.

    Each table's calibration took up how fast its machine was for the networks against the blocks. The
    reference workload tells it; of tables that do not keep that, their predictions for the same networks do,
    each by a calibration of its own, where both have a resolution and width. Else the two cannot be told
    apart, and networks go with the blocks. Held-out networks decide nothing: the certificate is of them.
    """
    if held.network_slowdown is not None and table.network_slowdown is not None:
        return held.network_slowdown / table.network_slowdown
    if min(_calibration_networks(held), _calibration_networks(table)) < FEWEST_NETWORKS:
        return 1.0
    resolutions = tuple(r for r in table.resolutions if any(r in one.resolutions for one in before))
    widths = tuple(w for w in table.widths if any(w in one.widths for one in before))
    if not (resolutions and widths):
        return 1.0
    both = space.restrict(resolutions=resolutions, widths=widths)
    drawn = [
        architecture
        for architecture in random_architectures(IntegerEncoding(both), np.random.default_rng(0), _PREDICTED)
        if any(
            architecture.resolution in one.resolutions and architecture.width in one.widths for one in before
        )
    ]
    if not drawn:
        return 1.0
    lowered = [lower(both, architecture, _CLASSES) for architecture in drawn]
    one, two = (
        np.array([latency.network_ms(network) for network in lowered])
        for latency in (_calibrated(held, space), _calibrated(table, space))
    )
    return float(np.median(one / two)) / factor


def _calibration_networks(table: LatencyTable) -> int:
    return sum(network.role == "calibration" for network in table.networks)


def _calibrated(table: LatencyTable, space: SearchSpace) -> BlockLatency:
    overhead_ms = 0.0 if table.calibration is None else table.calibration.call_overhead_ms
    return BlockLatency(fit_table(table, space, call_overhead_ms=overhead_ms, noise=None)[0])


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

    An architecture that one table calibrates on is held out by none, with any number of classes: a
    certificate is of networks never seen.
    """
    seen = {_architecture(network) for network in networks if network.role == "calibration"}
    found: dict[tuple[str, int], NetworkEntry] = {}
    for network in networks:
        if network.role == "held-out" and _architecture(network) in seen:
            continue
        name = _architecture(network), network.classes
        held = found.get(name)
        if held is None or _width(network) < _width(held):
            found[name] = network
    return tuple(found.values())


def _architecture(network: NetworkEntry) -> str:
    return json.dumps(network.architecture, sort_keys=True)


def _check_grid(tables: Sequence[LatencyTable], space: SearchSpace) -> None:
    """Tables of other resolutions and other widths leave holes: find them now, not in a search."""
    for resolution in space.resolutions:
        for width in space.widths:
            if not any(resolution in table.resolutions and width in table.widths for table in tables):
                raise UserError(
                    f"no table has {resolution} pixels at width {width:g}, which the merged one would "
                    "promise; profile it too"
                )
