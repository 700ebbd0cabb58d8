"""How long a search still takes, by what its stages have taken so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from nat2deploy.search.nat2 import Status
from nat2deploy.search.settings import SearchSettings

_FOUND_S = 1e-3
"""A step that takes less was found on disk by a search that goes on, and says nothing of others."""


class TimeLeft:
    """Follows a search's statuses; knows the time left once each stage that is to come has run before.

    A round is judging the archive, surrogate, evolution, evaluation and adaptation; after the last one the
    archive is judged once more.
    """

    def __init__(self, settings: SearchSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self._order = ["archive", "surrogate", "evolve", "evaluate"]
        self._order += ["distribution"] if settings.distribution != "categorical" else []
        self._order += ["adapt"] if settings.adapt_epochs > 0 else []
        self._steps = {"archive": float(settings.archive_size), "evaluate": float(settings.candidates)}
        self._seconds: dict[str, float] = defaultdict(float)
        self._done: dict[str, float] = defaultdict(float)
        self._last: tuple[Status, float] | None = None

    def __call__(self, status: Status) -> float | None:
        """Take a status and return the seconds that the search still takes, None while they are not known."""
        now = self.clock()
        if self._last is not None:
            self._note(*self._last, status, now)
        self._last = (status, now)
        left_s = 0.0
        for stage in self._order:
            steps = self._steps_left(stage, status)
            if steps > 0 and self._done[stage] == 0:
                return None
            left_s += steps * self._seconds[stage] / max(1.0, self._done[stage])
        return left_s

    def _note(self, before: Status, then: float, status: Status, now: float) -> None:
        """Put the time since the last status to the stage that took it, with the steps that it did."""
        if before.stage != status.stage and before.done < before.total:
            stage, steps = before.stage, float(before.total - before.done)  # told when it began
        else:
            goes_on = (before.stage, before.version) == (status.stage, status.version)
            stage, steps = status.stage, float(status.done - before.done if goes_on else 1)
        if steps > 0 and now - then >= _FOUND_S:
            self._seconds[stage] += now - then
            self._done[stage] += steps
        if status.stage not in ("archive", "evaluate"):
            self._steps[status.stage] = float(status.total)

    def _steps_left(self, stage: str, status: Status) -> float:
        """Steps of a stage in the rest of the search."""
        place = self._order.index(status.stage) if status.stage in self._order else 0
        here = self._order.index(stage)
        rounds = max(0, self.settings.rounds - status.version)
        if stage == "archive":
            passes = rounds if self.settings.reevaluate else 0
        else:
            passes = rounds if here > place else max(0, rounds - 1)
        running = status.total - status.done if stage == status.stage else 0
        return running + passes * self._steps.get(stage, 1.0)


def in_words(seconds: float) -> str:
    """A length of time, as roughly as it is known."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
