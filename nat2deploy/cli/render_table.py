"""Latency tables as Rich tables, or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from nat2deploy.cli.console import console, percent, print_json
from nat2deploy.search.budget import format_cost

if TYPE_CHECKING:  # each brings half of torch along, which bad input should not wait for
    from nat2deploy.cost.certificate import Certificate
    from nat2deploy.cost.difference import Difference
    from nat2deploy.cost.table import LatencyTable
    from nat2deploy.run.tables import Validation


def print_table(table: LatencyTable, *, as_json: bool, entries: int = 0, written: Path | None = None) -> None:
    """A latency table's target, certificate and slowest blocks."""
    if as_json:
        print_json(table.model_dump(mode="json"))
        return
    from nat2deploy.cost.doubts import measuring_doubts
    from nat2deploy.cost.energy import energy_words

    if written is not None:
        console.print(f"wrote {written}")
    console.print(f"space        {table.space}, resolutions {', '.join(map(str, table.resolutions))}")
    console.print(f"target       {table.target}")
    console.print(f"machine      {table.fingerprint!s}")
    clock = ", ".join(f"{name} {words}" for name, words in table.fingerprint.words().items())
    console.print(f"clock        {clock}", soft_wrap=True)
    for change in table.clock_changes:
        console.print(f"             did not stay the same: {change}", soft_wrap=True)
    console.print(f"energy       {energy_words(table)}", soft_wrap=True)
    console.print(f"entries      {len(table.entries)} blocks")
    console.print(f"noise        {_noise(table)}", soft_wrap=True)
    for doubt in measuring_doubts(table):
        console.print(f"             {doubt}", soft_wrap=True)
    certificate = table.certificate
    if certificate is None:
        console.print("certificate  none: a search with a latency budget will refuse this table")
    else:
        console.print(f"certificate  {_certified(certificate)}")
    if entries:
        metered = any(entry.energy_mj is not None for entry in table.entries.values())
        energy = ("mJ",) if metered else ()
        rows = Table("slowest blocks", "ms", "p95", *energy, "MACs", "params", box=None, header_style="bold")
        slowest = sorted(table.entries.items(), key=lambda item: -item[1].median_ms)[:entries]
        for key, entry in slowest:
            rows.add_row(
                key,
                f"{entry.median_ms:.4f}",
                f"{entry.p95_ms:.4f}",
                *(("" if entry.energy_mj is None else f"{entry.energy_mj:.4g}",) if metered else ()),
                format_cost("macs", entry.macs),
                format_cost("params", entry.params),
            )
        console.print(rows)


def _noise(table: LatencyTable) -> str:
    from nat2deploy.cost.certificate import MAX_NOISE

    of_networks = table.noise_of_networks()
    held = "not kept" if of_networks is None else percent(of_networks)
    return (
        f"networks {held}, which decides on the certificate (at most {percent(MAX_NOISE)}); "
        f"blocks {percent(table.noise_floor)}"
    )


def _certified(certificate: Certificate) -> str:
    words = (
        f"{certificate.networks} networks never seen: mean error {certificate.mape:.2%}, "
        f"{certificate.within_5pct:.0%} within 5 %, {certificate.within_10pct:.0%} within 10 %, "
        f"Spearman {certificate.spearman:.3f}"
    )
    if certificate.p95_mape is not None and certificate.p99_mape is not None:
        words += f"; 95th percentile {certificate.p95_mape:.2%} off, 99th {certificate.p99_mape:.2%}"
    return words


def print_validation(validation: Validation, path: Path, *, as_json: bool) -> None:
    """A certificate before and after fresh networks."""
    if as_json:
        before = validation.before
        print_json(
            {
                "contradicted": validation.contradicted,
                "updated": validation.updated,
                "before": None if before is None else before.model_dump(mode="json"),
                "fresh": validation.fresh.model_dump(mode="json"),
            }
        )
        return
    console.print(
        f"before  {'no certificate' if validation.before is None else _certified(validation.before)}"
    )
    console.print(f"fresh   {_certified(validation.fresh)}")
    if validation.contradicted:
        console.print(f"the fresh networks contradict {path}; profile again, on the machine as it is now")
    elif validation.updated:
        console.print(f"{path} now carries the fresh certificate")
    elif validation.whole and validation.before is not None:
        held, fresh = validation.before.networks, validation.fresh.networks
        console.print(
            f"the {fresh} fresh networks do not contradict {path}, which keeps its certificate of {held}; "
            f"--networks {held} would replace it"
        )
    elif validation.before is None:
        console.print(
            f"{path} stays without a certificate: one is of its own space, on networks of all of it"
        )
    else:
        console.print(f"{path} keeps the certificate of its own space")


def print_difference(difference: Difference, *, blocks: int, as_json: bool) -> None:
    """What two tables say differently."""
    if as_json:
        print_json(asdict(difference))
        return
    if difference.context:
        table = Table("", "first", "second", box=None, header_style="bold")
        for row in difference.context:
            table.add_row(*row)
        console.print(table)
    console.print(
        f"{len(difference.blocks)} blocks in both ({difference.only_first} only in the first, "
        f"{difference.only_second} only in the second); second/first, median: {difference.block_ratio:.3f}"
    )
    console.print(
        f"{difference.networks} random networks, predicted; second/first, median: "
        f"{difference.network_ratio:.3f} (90 % in {difference.network_low:.3f} to "
        f"{difference.network_high:.3f}), Spearman {difference.spearman:.3f}"
    )
    if blocks:
        table = Table(
            "most different blocks", "first ms", "second ms", "ratio", box=None, header_style="bold"
        )
        for block in difference.blocks[:blocks]:
            table.add_row(block.key, f"{block.first_ms:.4f}", f"{block.second_ms:.4f}", f"{block.ratio:.3f}")
        console.print(table)
