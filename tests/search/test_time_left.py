"""The time left of a search whose stages take known times."""

from __future__ import annotations

import pytest

from nat2deploy.search.nat2 import Status
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.time_left import TimeLeft, in_words

SETTINGS = SearchSettings(archive_size=10, candidates=4, rounds=3)
# Seconds a step: what a round is made of, in its order.
ROUND = (
    ("archive", 10, 0.5),
    ("surrogate", 1, 3.0),
    ("evolve", 1, 2.0),
    ("evaluate", 4, 0.5),
    ("adapt", 20, 0.25),
)
TOTAL_S = 3 * (5 + 3 + 2 + 2 + 5) + 5


class Search:
    """Tells its statuses as the NAT2 loop does, and notes what is said to be left beside what is left."""

    def __init__(self, time_left, settings=SETTINGS):
        self.now = 0.0
        self.settings = settings
        time_left.clock = lambda: self.now
        self.time_left = time_left
        self.said: list[tuple[Status, float | None, float]] = []

    def tell(self, stage, version, done, total):
        status = Status(stage, version, self.settings.rounds, done, total, version)
        self.said.append((status, self.time_left(status), self.now))

    def run(self, found=0):
        """``found``: so many evaluations are on disk already."""
        for version in range(self.settings.rounds + 1):
            for stage, steps, seconds in ROUND[:1] if version == self.settings.rounds else ROUND:
                if stage in ("surrogate", "evolve"):
                    self.tell(stage, version, 0, 1)
                    self.now += seconds
                    self.tell(stage, version, 1, 1)
                    continue
                for step in range(steps):
                    self.now += 0.0 if stage == "archive" and version == 0 and step < found else seconds
                    self.tell(stage, version, step + 1, steps)
                if stage == "archive":
                    self.tell("round", version, version, self.settings.rounds)
        return self.said


def test_it_is_exact_once_every_stage_has_run():
    said = Search(TimeLeft(SETTINGS, 4)).run()
    assert said[0][1] is None
    known = [(left, now) for status, left, now in said if status.version > 0]
    assert len(known) > 80
    assert all(left == pytest.approx(TOTAL_S - now) for left, now in known)
    assert known[-1][0] == 0


def test_what_was_found_on_disk_says_nothing():
    said = Search(TimeLeft(SETTINGS, 4)).run(found=7)
    end = said[-1][2]
    assert all(left == pytest.approx(end - now) for status, left, now in said if status.version > 0)


def test_nothing_is_known_before_each_stage_has_run():
    said = Search(TimeLeft(SETTINGS, 4)).run()
    first = next(status for status, left, _ in said if left is not None)
    assert (first.stage, first.version) == ("adapt", 0)


def test_stages_that_never_run_are_not_waited_for():
    settings = SETTINGS.model_copy(update={"adapt_epochs": 0.0, "reevaluate": False, "rounds": 1})
    search = Search(TimeLeft(settings, 4), settings)
    for step in range(10):
        search.now += 1
        search.tell("archive", 0, step + 1, 10)
    for stage in ("surrogate", "evolve"):
        search.tell(stage, 0, 0, 1)
        search.now += 2
        search.tell(stage, 0, 1, 1)
    search.now += 1
    search.tell("evaluate", 0, 1, 4)
    search.now += 1
    search.tell("evaluate", 0, 2, 4)
    assert search.said[-1][1] == pytest.approx(2, abs=1)
    search.tell("evaluate", 0, 4, 4)
    assert search.said[-1][1] == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "1 s"), (12.4, "12 s"), (59.9, "60 s"), (61, "1 min"), (3500, "58 min"), (7265, "2 h 1 min")],
)
def test_times_as_people_say_them(seconds, words):
    assert in_words(seconds) == words
