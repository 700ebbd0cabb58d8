"""What early exits do, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from nat2deploy.cli.console import console, percent

if TYPE_CHECKING:
    from nat2deploy.deploy.bench import BenchRow
    from nat2deploy.deploy.evidence import StagesEvidence
    from nat2deploy.deploy.manifest import StagesSpec


def print_stages(stages: StagesSpec, measured: Sequence[StagesEvidence | None]) -> None:
    """Thresholds, who leaves where, and the expected latency."""
    console.print(f"stages   {len(stages.exits)}, for {stages.target}; sure by {stages.confidence}")
    table = Table(
        "exit", "leaves at", "validation", "test", "latency ms", "MACs", box=None, header_style="bold"
    )
    exits = next((one.exits for one in reversed(measured) if one is not None), ())
    for index, stage in enumerate(stages.exits):
        last = index + 1 == len(stages.exits)
        threshold = "the rest" if last else "nobody" if stage.threshold is None else f"{stage.threshold:.4f}"
        table.add_row(
            str(index + 1),
            threshold,
            percent(stages.validation.shares[index]),
            "-" if stages.test is None else percent(stages.test.shares[index]),
            f"{exits[index].median_ms:.3f}" if exits else "-",
            f"{stage.costs.macs / 1e6:.2f}M",
        )
    console.print(table)
    if stages.merged:
        numbers = ", ".join(map(str, stages.merged))
        console.print(f"merged   the network's exits {numbers}: too few left there to pay for a stage")
    for name, one in (("valid.", stages.validation), ("test", stages.test)):
        if one is not None:
            console.print(
                f"{name:<8} {percent(one.top1)} early, {percent(one.ensemble_top1)} with all stages, "
                f"{one.images} images"
            )
    for found in (one for one in measured if one is not None):
        console.print(f"expected {found.expected_ms:.3f} ms")


def expected_row(row: BenchRow) -> tuple[str, ...]:
    """Expected latency and what follows from it, in the columns of a bench's times."""
    early = row.early_exits
    assert early is not None
    images = row.throughput * row.median_ms
    return (
        f"{row.name}, expected",
        f"{early.expected_ms:.3f}\n{early.expected_low_ms:.3f}-{early.expected_high_ms:.3f}",
        "-",
        "-",
        f"{images / early.expected_ms:.0f}\n"
        f"{images / early.expected_high_ms:.0f}-{images / early.expected_low_ms:.0f}",
    )


def print_leaving(rows: Sequence[BenchRow]) -> None:
    """The share of images that leaves at each exit, with the latency up to there."""
    for row in rows:
        if row.early_exits is not None:
            early = row.early_exits
            words = ", ".join(
                f"{percent(share)} at {latency:.3f} ms"
                for share, latency in zip(early.shares, early.exits_ms, strict=True)
            )
            console.print(f"{row.name} leaves: {words}")
