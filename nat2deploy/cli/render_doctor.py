"""What the doctor found, as a table or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from nat2deploy.cli.console import console, print_json

if TYPE_CHECKING:
    from nat2deploy.doctor.finding import Finding

_STATES = {
    "ok": Text("ok"),
    "optional": Text("not here"),
    "warning": Text("warning", "yellow"),
    "failure": Text("failure", "red"),
}


def print_findings(areas: Mapping[str, Sequence[Finding]], *, as_json: bool) -> None:
    """Each area's findings, what to do about them, and how many of each state."""
    if as_json:
        print_json({area: [asdict(finding) for finding in findings] for area, findings in areas.items()})
        return
    for area, findings in areas.items():
        table = Table("what", "state", "found", box=None, header_style="bold", title=area)
        table.title_justify = "left"
        for finding in findings:
            words = finding.words if not finding.remedy else f"{finding.words} → {finding.remedy}"
            table.add_row(finding.name, _STATES[finding.state], words)
        console.print(table)
        console.print()
    counts = Counter(finding.state for findings in areas.values() for finding in findings)
    said = (
        f"{counts[state] or 'no'} {state}{'s' * (counts[state] != 1)}" for state in ("failure", "warning")
    )
    console.print(", ".join(said))
