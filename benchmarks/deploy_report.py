"""What ``benchmarks/deploy.py`` found: two fronts compared, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]
FASTER = 1.5
"""How many times faster ours are to be at a peer's accuracy."""


def rows_of(
    measured: Sequence[Any], trained: Mapping[str, Any], shared: float | None
) -> list[dict[str, Any]]:
    """One row for each network of ``bench``, cheapest first; ``shared`` are minutes behind all of ours."""
    rows = []
    for one in sorted(measured, key=lambda one: one.median_ms):
        by = trained[one.name]
        rows.append(
            {
                "network": one.name,
                "side": by.side,
                "resolution": by.resolution,
                "top1": one.accuracy.top1,
                "top1_low": one.accuracy.low,
                "top1_high": one.accuracy.high,
                "images": one.accuracy.images,
                "latency_ms": one.median_ms,
                "latency_low_ms": one.ci_low_ms,
                "latency_high_ms": one.ci_high_ms,
                "p95_ms": one.p95_ms,
                "settled": one.settled,
                "peak_memory_mb": one.peak_memory_mb,
                "macs": one.macs,
                "params": one.params,
                "epochs": by.epochs,
                "training_minutes": by.minutes,
                "shared_minutes": shared if by.side == "ours" else 0.0,
            }
        )
    return rows


def compare(rows: Sequence[Row], side: str) -> list[dict[str, Any]]:
    """Ours against each peer of a side, at its latency and at its accuracy.

    ``points``: how much more accurate our best network is that is no slower, with the half width of the
    difference's 95 % interval; ``times_faster``: how much faster our fastest one is that is no less accurate,
    with what the ends of both latencies' intervals make of it. None where ours have no such network.

    Both fronts are staircases, so that what holds at each peer holds at every latency between.
    """
    ours = [row for row in rows if row["side"] == "ours"]
    peers = sorted((row for row in rows if row["side"] == side), key=lambda row: row["latency_ms"])
    found = []
    for peer in peers:
        no_slower = [row for row in ours if row["latency_ms"] <= peer["latency_ms"]]
        as_good = [row for row in ours if row["top1"] >= peer["top1"]]
        best = max(no_slower, key=lambda row: row["top1"], default=None)
        fastest = min(as_good, key=lambda row: row["latency_ms"], default=None)
        points = None if best is None else 100 * (best["top1"] - peer["top1"])
        times = None if fastest is None else peer["latency_ms"] / fastest["latency_ms"]
        found.append(
            {
                "peer": peer["network"],
                "on_front": not any(
                    other["latency_ms"] <= peer["latency_ms"] and other["top1"] > peer["top1"]
                    for other in peers
                ),
                "ours_at_its_latency": None if best is None else best["network"],
                "points": points,
                "points_interval": None if best is None else _half_width(best, peer),
                "ours_at_its_accuracy": None if fastest is None else fastest["network"],
                "times_faster": times,
                "times_faster_interval": None
                if fastest is None
                else (
                    peer["latency_low_ms"] / fastest["latency_high_ms"],
                    peer["latency_high_ms"] / fastest["latency_low_ms"],
                ),
                "as_accurate": points is not None and points >= 0,
                "faster": times is not None and times >= FASTER,
            }
        )
    return found


def _half_width(one: Row, other: Row) -> float:
    """Of the difference of two shares, in points; wider than need be, since the images are the same."""
    variance = sum(row["top1"] * (1 - row["top1"]) / row["images"] for row in (one, other))
    return 196 * variance**0.5


def print_report(
    console: Console, engine: str, rows: Sequence[Row], verdicts: Mapping[str, list[Any]]
) -> None:
    """Print an engine's networks, and ours against each peer."""
    table = Table(
        *("network", "px", "side", "test top-1", "95 %", "latency", "95 %", "p95", "MACs", "params"),
        *("peak MB", "epochs", "minutes", "and shared"),
        title=engine,
        box=None,
    )
    for row in rows:
        memory, macs, minutes = row["peak_memory_mb"], row["macs"], row["training_minutes"]
        shared = row["shared_minutes"]
        table.add_row(
            row["network"],
            str(row["resolution"]),
            row["side"],
            f"{row['top1']:.2%}",
            f"{100 * row['top1_low']:.2f}-{100 * row['top1_high']:.2f}",
            f"{row['latency_ms']:.3f} ms",
            f"{row['latency_low_ms']:.3f}-{row['latency_high_ms']:.3f}",
            f"{row['p95_ms']:.3f}",
            "-" if macs is None else f"{macs / 1e6:.2f}M",
            f"{row['params'] / 1e3:.0f}k",
            "-" if memory is None else f"{memory:.0f}",
            f"{row['epochs']:.2f}",
            "-" if minutes is None else f"{minutes:.1f}",
            "-" if shared is None else f"{shared:.0f}",
        )
    console.print(table)
    for side, verdict in verdicts.items():
        _print_verdict(console, f"{engine}: ours against {side}", verdict)


def _print_verdict(console: Console, title: str, verdict: Sequence[Row]) -> None:
    table = Table(
        *("peer", "at its latency", "points", "at its accuracy", "times faster", "95 %", "holds"),
        title=title,
        box=None,
    )
    for one in verdict:
        times, interval = one["times_faster"], one["times_faster_interval"]
        table.add_row(
            one["peer"] + ("" if one["on_front"] else " (not on their front)"),
            one["ours_at_its_latency"] or "none",
            "-" if one["points"] is None else f"{one['points']:+.2f} ± {one['points_interval']:.2f}",
            one["ours_at_its_accuracy"] or "none",
            "-" if times is None else f"{times:.2f}",
            "-" if interval is None else f"{interval[0]:.2f}-{interval[1]:.2f}",
            f"accuracy {_word(one['as_accurate'])}, {FASTER:g} times faster {_word(one['faster'])}",
        )
    console.print(table)


def _word(holds: bool) -> str:
    return "yes" if holds else "NO"


def draw(rows: Mapping[str, Sequence[Row]], path: Path, title: str) -> None:
    """Draw both fronts, a panel an engine, with 95 % intervals; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator, PercentFormatter

    figure, panels = pyplot.subplots(
        1, len(rows), figsize=(5.0 * len(rows), 4.6), sharey=True, squeeze=False, layout="constrained"
    )
    peers = dict.fromkeys(row["network"] for held in rows.values() for row in held if row["side"] != "ours")
    markers = dict(zip(peers, cycle("s^vDP*X"), strict=False))
    for axes, (engine, held) in zip(panels[0], rows.items(), strict=True):
        sides = list(dict.fromkeys(row["side"] for row in held))
        for side in sorted(sides, key=lambda side: side != "ours"):
            here = [row for row in held if row["side"] == side]
            colour = {"ours": "tab:blue", "peers": "tab:orange"}.get(side, "tab:brown")
            _staircase(axes, here, max(row["latency_ms"] for row in held), colour)
            for row in here:
                latency, top1 = row["latency_ms"], row["top1"]
                axes.errorbar(
                    [latency],
                    [top1],
                    [[top1 - row["top1_low"]], [row["top1_high"] - top1]],
                    [[latency - row["latency_low_ms"]], [row["latency_high_ms"] - latency]],
                    markers[row["network"]] if side != "ours" else "o",
                    color=colour,
                    markersize=5,
                    linewidth=1,
                    label=side if side == "ours" else f"{side}: {row['network']}",
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.margins(x=0.08)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set(title=engine, xlabel="latency, ms")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("test top-1")
    found = [axes.get_legend_handles_labels() for axes in panels[0]]
    handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _staircase(axes: Any, rows: Sequence[Row], right: float, colour: str) -> None:
    """The best accuracy up to each latency, as far as ``right``."""
    x, y = [], []
    for row in sorted(rows, key=lambda row: row["latency_ms"]):
        if not y or row["top1"] > y[-1]:
            x.append(row["latency_ms"])
            y.append(row["top1"])
    axes.step([*x, right], [*y, y[-1]], where="post", color=colour, linewidth=1.2)
