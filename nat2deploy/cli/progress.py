"""Progress on standard error: a live bar on a terminal; elsewhere one line a stage, and more of long ones.

Remarks are lines of their own everywhere, printed at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nat2deploy.cli.verbosity import Verbosity, verbosity
from nat2deploy.launch import launched
from nat2deploy.progress import REMARK, Report, silent


@contextmanager
def progress() -> Iterator[Report]:
    """Yield a report that draws itself; of several processes that of the first alone does."""
    if not launched().is_first or verbosity() is Verbosity.QUIET:
        yield silent
        return
    console = Console(file=sys.stderr)
    each_step = verbosity() is Verbosity.VERBOSE
    if each_step or not console.is_terminal:
        lines = _Steps(console) if each_step else _Lines(console)
        yield lines
        lines.close()
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as bars:
        yield _Bars(bars)


class _Bars:
    """One live bar for the current stage; finished stages stay above it."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.stage = ""
        self.task: TaskID | None = None

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        if stage == REMARK:
            _print(self.bars.console, detail)  # above the bar
            return
        if stage != self.stage:
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.stage = stage
            self.task = self.bars.add_task(escape(stage), total=total, detail=escape(detail))
        assert self.task is not None
        self.bars.update(self.task, completed=done, total=total, detail=escape(detail))


class _Steps:
    """Prints each step with the seconds since the start; steps of one second come as one line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begun = self.printed = time.monotonic()
        self.waiting = ""

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        if stage == REMARK:
            self.close()
            _print(self.console, detail)
            return
        now = time.monotonic()
        share = f"{done / total:4.0%} " if total else ""
        self.waiting = f"{now - self.begun:8.1f} s {share}{stage}{f': {detail}' if detail else ''}"
        if now - self.printed >= 1:
            self.printed = now
            self.close()

    def close(self) -> None:
        """Print the step that is left."""
        if self.waiting:
            _print(self.console, self.waiting)
        self.waiting = ""


_LONG_S = 30.0


class _Lines:
    """Prints a stage's last words when the next one begins, and how far it is while it takes long."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stage = ""
        self.detail = ""
        self.told = time.monotonic()

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        if stage == REMARK:
            _print(self.console, detail)
            return
        if stage != self.stage:
            self.close()
            self.stage = stage
        self.detail = detail
        if time.monotonic() - self.told >= _LONG_S:
            self._print(f" {done / total:.0%}" if total else " ...")

    def close(self) -> None:
        """Print the stage that is left."""
        if self.stage:
            self._print("")
        self.stage = ""

    def _print(self, how_far: str) -> None:
        _print(self.console, f"{self.stage}{how_far}" + (f": {self.detail}" if self.detail else ""))
        self.told = time.monotonic()


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
