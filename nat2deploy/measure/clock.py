"""Timing single calls on the CPU: the clock's own cost, batches of calls, warm-up."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from nat2deploy.measure.statistics import Samples

Run = Callable[[], None]
# Any function that counts nanoseconds; tests hand in their own, so that no test depends on real speed.
Clock = Callable[[], int]
# Any function that counts how often the system took the processor away.
Switches = Callable[[], int]

LEAST_CALLS = 3
"""Timed calls of a visit, however long they take."""
_NS_A_MS = 1e6
_LEAST_MS = 1e-6  # a call cannot take less than the clock's own unit
_PATIENCE = 3


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up ended: calls made, whether the latency had settled, and its last window's median."""

    calls: int
    stable: bool
    call_ms: float


def timer_overhead_ms(*, clock: Clock = perf_counter_ns, repeats: int = 1000) -> float:
    """Return the median time in ms that the clock reads around a callable that does nothing."""
    return float(np.median(_time(_nothing, repeats, clock)))


def time_batch(
    run: Run, repeats: int, *, clock: Clock = perf_counter_ns, overhead_ms: float | None = None
) -> Samples:
    """Call ``run`` ``repeats`` times and return each call's latency in ms, shape ``[repeats]``.

    Args:
        run: what is timed.
        repeats: at least one.
        clock: counts nanoseconds.
        overhead_ms: the clock's own cost, subtracted from each; measured here if not given.

    Raises:
        ValueError: ``repeats`` below one.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats}")
    cost_ms = timer_overhead_ms(clock=clock) if overhead_ms is None else overhead_ms
    return np.maximum(_time(run, repeats, clock) - cost_ms, _LEAST_MS)


@dataclass(frozen=True)
class Batch:
    """Calls of one batch: latencies in ms, calls made, and how many of them were interrupted.

    ``samples_ms`` holds only calls that ran through, unless there was none: then all (``spoilt``).
    """

    samples_ms: Samples
    calls: int
    interrupted: int

    @property
    def spoilt(self) -> bool:
        """Whether every call was interrupted."""
        return self.interrupted == self.calls


def involuntary_switches() -> int:
    """Return how often the system has taken the processor from a thread of this process (0 on Windows)."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)


def time_uninterrupted(
    run: Run,
    repeats: int,
    *,
    clock: Clock = perf_counter_ns,
    switches: Switches = involuntary_switches,
    overhead_ms: float = 0.0,
) -> Batch:
    """Time ``repeats`` calls that ran without losing the processor, giving up at three times as many calls.

    On a busy machine another process gets the core every few milliseconds. The median of calls far shorter
    than that does not notice; of calls about as long, more than half contain such a pause and the median
    becomes several times too long. The kernel counts the pauses, so those calls are left out.

    Args:
        run: what is timed.
        repeats: uninterrupted calls wanted, at least one.
        clock: counts nanoseconds.
        switches: counts interruptions.
        overhead_ms: the clock's own cost, subtracted from each call.
    """
    clean: list[float] = []
    interrupted: list[float] = []
    while len(clean) < repeats and len(clean) + len(interrupted) < _PATIENCE * repeats:
        seen = switches()
        before = clock()
        run()
        taken_ms = max((clock() - before) / _NS_A_MS - overhead_ms, _LEAST_MS)
        (clean if switches() == seen else interrupted).append(taken_ms)
    return Batch(np.array(clean or interrupted), len(clean) + len(interrupted), len(interrupted))


def warm_up(
    run: Run,
    *,
    limit_s: float,
    least_ms: float = 0.0,
    window_ms: float = 5.0,
    tolerance: float = 0.02,
    clock: Clock = perf_counter_ns,
) -> WarmUp:
    """Call ``run`` until three successive windows have medians within ``tolerance``, or ``limit_s`` is over.

    Args:
        run: what is warmed up; called at least nine times.
        limit_s: give up after this long, checked after each window.
        least_ms: go on for at least this long, but not beyond the limit.
        window_ms: how much time a window fills, with at least three and at most 100 calls.
        tolerance: relative difference of one median to the next that counts as settled.
        clock: counts nanoseconds.
    """
    start = clock()
    window = 3
    previous = _median(run, window, clock)
    calls, settled = window, 0
    while True:
        window = calls_for(window_ms, previous)
        current = _median(run, window, clock)
        calls += window
        elapsed_ms = (clock() - start) / _NS_A_MS
        settled = settled + 1 if abs(current - previous) <= tolerance * previous else 0
        stable = settled >= 2
        if (stable and elapsed_ms >= least_ms) or elapsed_ms >= limit_s * 1000:
            return WarmUp(calls, stable, current)
        previous = current


def calls_for(visit_ms: float, call_ms: float) -> int:
    """Return how many calls of ``call_ms`` fill ``visit_ms``: at least 3, at most 100."""
    return int(min(max(round(visit_ms / call_ms), LEAST_CALLS), 100))


def _median(run: Run, repeats: int, clock: Clock) -> float:
    return max(float(np.median(_time(run, repeats, clock))), _LEAST_MS)


def _time(run: Run, repeats: int, clock: Clock) -> Samples:
    ticks = [0] * repeats
    for index in range(repeats):
        before = clock()
        run()
        ticks[index] = clock() - before
    return np.array(ticks, dtype=np.float64) / _NS_A_MS


def _nothing() -> None:
    pass
