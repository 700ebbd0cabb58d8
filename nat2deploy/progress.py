"""How long work tells where it is."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Receives the state of a stage; a command line draws it, a library caller may ignore it."""

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        """``done`` of ``total`` of a named stage, with a few words of ``detail``."""


def silent(stage: str, done: float, total: float, detail: str = "") -> None:
    """Ignore all progress."""
