"""One parser under test, and running it on many inputs."""

from __future__ import annotations

import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import typer

from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.errors import UserError

REFUSALS = (UserError, BadInput, typer.BadParameter)
"""What the command lines print as one line."""
MOST_CPU_S = 20


@dataclass(frozen=True)
class Target:
    """``make`` draws an input, ``feed`` gives it to the parser and uses what comes out as the package would.

    ``share`` is that of all inputs, relative to the other targets'.
    """

    name: str
    share: float
    make: Callable[[random.Random], Any]
    feed: Callable[[Any], object]


@dataclass
class Found:
    """Counts of a target, and each different fault once: its traceback and the first input that has it."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, tuple[str, str]] = field(default_factory=dict)


class TooSlow(BaseException):
    """An input took more processor time than any may."""


def fuzz(target: Target, count: int, seed: int) -> Found:
    """Feed a target; the same seed draws the same inputs."""
    found = Found(target.name)
    rng = random.Random(f"{target.name} {seed}")
    began = time.process_time()
    for _ in range(count):
        given = target.make(rng)
        found.inputs += 1
        try:
            with _at_most(MOST_CPU_S):
                target.feed(given)
            found.accepted += 1
        except REFUSALS as refusal:
            found.refused += 1
            if not str(refusal).strip():
                _note(found, "a refusal without a word", "", given)
        except (Exception, TooSlow) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            ours = [f for f in traceback.extract_tb(error.__traceback__) if "nat2deploy" in f.filename]
            place = ours[-1] if ours else last
            key = f"{type(error).__name__} at {place.filename.rpartition('nat2deploy/')[2]}:{place.lineno}"
            _note(found, key, traceback.format_exc(limit=-6), given)
    found.seconds = time.process_time() - began
    return found


def _note(found: Found, key: str, trace: str, given: object) -> None:
    found.faults[key] = found.faults.get(key, 0) + 1
    found.firsts.setdefault(key, (trace, repr(given)[:4000]))


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
