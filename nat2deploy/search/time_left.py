"""How long a search still takes, by what its stages have taken so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from nat2deploy.search.nat2 import Status
from nat2deploy.search.settings import SearchSettings

_FOUND_S = 1e-3
"""A step that takes less was found on disk by a search that goes on, and says nothing of others."""
_TOLD_AT_BEGIN = ("surrogate", "evolve", "distribution")
"""Stages whose first status says that a step begins, and no step of theirs is done."""


class TimeLeft:
    """Follows a search's statuses; knows the time left once each stage that is to come has run before.

    A round is judging the archive, then surrogate, evolution and evaluation, once or more, and adaptation;
    after the last one the archive is judged once more. ``candidates`` is how many a round judges.
    """

    def __init__(
        self, settings: SearchSettings, candidates: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.candidates = candidates
        self.clock = clock
        self._order = ["archive", "surrogate", "evolve", "evaluate"]
        self._order += ["distribution"] if settings.distribution != "categorical" else []
        self._order += ["adapt"] if settings.adapt_epochs > 0 else []
        self._steps = {"evaluate": float(candidates)}
        self._here: tuple[int, dict[str, float]] = (0, {})  # steps of the running round
        self._seconds: dict[str, float] = defaultdict(float)
        self._done: dict[str, float] = defaultdict(float)
        self._last: tuple[Status, float] | None = None

    def __call__(self, status: Status) -> float | None:
        """Take a status and return the seconds that the search still takes, None while they are not known."""
        now = self.clock()
        if self._last is not None:
            self._note(*self._last, status, now)
        self._last = (status, now)
        if self._here[0] != status.version:
            self._here = (status.version, {})
        self._here[1][status.stage] = float(status.done)
        left_s = 0.0
        for stage in self._order:
            steps = self._steps_left(stage, status)
            if steps > 0 and self._done[stage] == 0:
                return None
            left_s += steps * self._seconds[stage] / max(1.0, self._done[stage])
        return left_s

    def _note(self, before: Status, then: float, status: Status, now: float) -> None:
        """Put the time since the last status to the stage that took it, with the steps that it did."""
        goes_on = (before.stage, before.version) == (status.stage, status.version)
        steps = float(status.done - before.done if goes_on else status.stage not in _TOLD_AT_BEGIN)
        if steps > 0 and now - then >= _FOUND_S:
            self._seconds[status.stage] += now - then
            self._done[status.stage] += steps
        if status.stage not in ("archive", "evaluate"):
            self._steps[status.stage] = float(status.total)

    def _steps_left(self, stage: str, status: Status) -> float:
        """Steps of a stage in the rest of the search."""
        settings = self.settings
        rounds = max(0, settings.rounds - status.version)
        if stage != "archive":
            return max(0.0, rounds * self._steps.get(stage, 1.0) - self._here[1].get(stage, 0.0))
        running = status.total - status.done if status.stage == "archive" else 0
        again = range(status.version + 1, settings.rounds + 1) if settings.judges_again else range(0)
        sizes = (settings.first_size + version * self.candidates for version in again)
        grows = settings.update == "grow"
        return float(running + sum(size if grows else min(size, settings.archive_size) for size in sizes))


def in_words(seconds: float) -> str:
    """A length of time, as roughly as it is known."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
