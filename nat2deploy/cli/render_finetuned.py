"""What fine-tuning did, as a Rich table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from nat2deploy.cli.console import console, percent, print_json
from nat2deploy.search.budget import format_cost

if TYPE_CHECKING:  # each brings half of torch along, which bad input should not wait for
    from nat2deploy.run.finetune_report import FinetuneReport, Judged


def print_finetuned(reports: Sequence[FinetuneReport], *, as_json: bool) -> None:
    """Accuracies before and after fine-tuning; of AEP the exits that were kept, and costs."""
    if as_json:
        print_json([report.model_dump(mode="json") for report in reports])
        return
    columns = ["network", "validation before", "after", "test"]
    with_exits = any(report.config.method == "aep" for report in reports)
    with_phases = any(report.config.phases == 2 for report in reports)
    columns += ["epochs"] * with_phases + ["exits", "weights", "MACs", "params", "latency"] * with_exits
    table = Table(*columns, "", box=None, header_style="bold")
    for report in reports:
        cells = [
            report.id,
            _judged(report.validation_before),
            _judged(report.validation_after),
            _judged(report.test),
        ]
        if with_phases:
            cells.append("-" if report.epochs is None else f"{report.epochs:g}")
        if with_exits:
            cells += _exits(report)
        words = [] if report.kept else ["not better: left as it was"]
        if not report.feasible:
            words.append("over budget")
        table.add_row(*cells, ", ".join(words))
    console.print(table)


def _exits(report: FinetuneReport) -> list[str]:
    exits = report.architecture.get("exits", [len(report.architecture.get("d", []))])
    latencies = [
        format_cost(metric, value)
        for metric, value in report.costs.items()
        if metric.partition("@")[0] == "latency_ms"
    ]
    return [
        ",".join(map(str, exits)),
        " ".join(f"{weight:.2f}" for weight in report.exit_weights),
        format_cost("macs", report.costs["macs"]) if report.costs else "-",
        format_cost("params", report.costs["params"]) if report.costs else "-",
        ", ".join(latencies) or "-",
    ]


def _judged(judged: Judged) -> str:
    return f"{percent(judged.top1)} ({100 * judged.low:.2f}-{100 * judged.high:.2f})"
