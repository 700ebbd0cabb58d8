"""How long work tells where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

REMARK = "remark"
"""The stage of words that must not be missed: no progress, a line of its own wherever progress is drawn."""


class Report(Protocol):
    """Receives the state of a stage; a command line draws it, a library caller may ignore it."""

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        """``done`` of ``total`` of a named stage, with a few words of ``detail``.

        Of the stage ``REMARK``, ``detail`` is a whole line, to be kept.
        """


def silent(stage: str, done: float, total: float, detail: str = "") -> None:
    """Ignore all progress."""


def remarks(report: Report) -> Callable[[str], None]:
    """Return what sends a line to ``report`` that must not be missed."""
    return lambda text: report(REMARK, 1.0, 1.0, text)
