"""Reports, as people read what was written."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from nat2deploy.cli.console import console, print_json

if TYPE_CHECKING:
    from nat2deploy.report.write import Written


def print_report(written: Written, *, as_json: bool) -> None:
    """Where the report and its pictures are."""
    if as_json:
        print_json(asdict(written))
        return
    state = "" if written.finished else "; the search is not finished"
    networks = "1 network" if written.networks == 1 else f"{written.networks} networks"
    console.print(f"report {written.report} ({networks} on the front{state})", soft_wrap=True)
    if written.pictures:
        names = ", ".join(picture.name for picture in written.pictures)
        console.print(f"pictures {written.pictures[0].parent}: {names}", soft_wrap=True)
    for problem in written.problems:
        console.print(f"left out: {problem}", soft_wrap=True)
