"""One parser under test, and running it on many inputs."""

from __future__ import annotations

import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import typer

from fuzz.inputs import Damage
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.errors import UserError

REFUSALS = (UserError, BadInput, typer.BadParameter)
"""What the command lines print as one line."""
MOST_CPU_S = 20


@dataclass(frozen=True)
class Target:
    """``feed`` gives an input to the parser and uses what comes out as the package would.

    Inputs are bytes: ``seeds`` are whole ones, ``damage`` makes others of them. ``share`` is that of all
    inputs, relative to the other targets'.
    """

    name: str
    share: float
    seeds: Sequence[bytes]
    damage: Damage
    feed: Callable[[bytes], object]


@dataclass
class Found:
    """Counts of a target, and each different fault once: its traceback and the first input that has it.

    ``edges``, ``features`` and ``corpus`` are what coverage-guided fuzzing reached: branches of the package's
    code, those with how often they were taken, and the inputs which together do that.
    """

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, tuple[str, str]] = field(default_factory=dict)
    edges: int | None = None
    features: int | None = None
    corpus: int | None = None

    def note(self, key: str, trace: str, given: bytes) -> None:
        """Count a fault."""
        self.faults[key] = self.faults.get(key, 0) + 1
        self.firsts.setdefault(key, (trace, repr(given)[:4000]))


class TooSlow(BaseException):
    """An input took more processor time than any may."""


def fuzz(target: Target, count: int, seed: int) -> Found:
    """Feed a target with damaged seeds; the same seed draws the same inputs."""
    found = Found(target.name)
    rng = random.Random(f"{target.name} {seed}")
    began = time.process_time()
    for _ in range(count):
        feed_one(target, target.damage(rng, rng.choice(target.seeds)), found)
    found.seconds = time.process_time() - began
    return found


def feed_one(target: Target, given: bytes, found: Found) -> None:
    """Feed one input, and count what came of it."""
    found.inputs += 1
    try:
        with _at_most(MOST_CPU_S):
            target.feed(given)
        found.accepted += 1
    except REFUSALS as refusal:
        found.refused += 1
        if not str(refusal).strip():
            found.note("a refusal without a word", "", given)
    except (Exception, TooSlow) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "nat2deploy" in f.filename]
        place = ours[-1] if ours else last
        key = f"{type(error).__name__} at {place.filename.rpartition('nat2deploy/')[2]}:{place.lineno}"
        found.note(key, traceback.format_exc(limit=-6), given)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
