"""Measuring many candidates fairly: interleaved rounds, each candidate until its median is known."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nat2deploy.measure.clock import (
    Batch,
    Clock,
    Run,
    Switches,
    calls_for,
    involuntary_switches,
    time_uninterrupted,
    timer_overhead_ms,
    warm_up,
)
from nat2deploy.measure.reference import ReferenceLog, keep_quiet
from nat2deploy.measure.statistics import (
    FEWEST_ROUNDS,
    Samples,
    Summary,
    percentile_intervals,
    relative_spread,
    summarise_rounds,
)

Progress = Callable[[float, str], None]

CHECK_EVERY_MS = 50.0
"""Between two looks at the reference workload: short against the seconds that a disturbance lasts."""
VISIT_MS = 4.0
"""That a visit fills with timed calls."""
SETTLE_MS = 2.0
"""That untimed calls fill before."""
WARM_UP_SHARE = 0.2
"""Of the time, that warming up may take."""
_WARM_UP_LIMIT_S = 0.5


@dataclass(frozen=True)
class TailIntervals:
    """95 % intervals of the 95th and of the 99th percentile of latency, in ms."""

    p95_ms: tuple[float, float]
    p99_ms: tuple[float, float]


@dataclass(frozen=True)
class Measurement:
    """What a measurement of many candidates found.

    Attributes:
        summaries: latency of each candidate, in the order given.
        converged: whether its confidence interval came within the precision asked for, in time.
        noise_floor: relative repeat noise (robust standard deviation) of the reference workload's medians;
            without a reference, the median over the candidates of theirs.
        reference_ms: median of the reference workload (None without one). Two measurements of one machine at
            different times agree better after scaling by it: it follows the clock frequency.
        drift: largest relative deviation of the reference's round medians from its overall median
            (0 without a reference).
        interrupted_share: share of the timed calls that lost the processor to another process; they are not
            in the summaries, except where a visit had no other.
        rounds: rounds begun.
        discarded_rounds: rounds of which at least one visit was thrown away because the reference was slow.
        elapsed_s: wall time, warm-up included.
        energy_mj: energy of one call of each candidate in mJ, None where it was not measured.
        energy_word: how the energy was measured, or why not; empty where nobody asked.
        clocks: ``machine.clock_facts`` before and after, both while the processor was at work; after it with
            ``gpu.clock_at_work`` where a GPU was measured on.
        tail_intervals: of each candidate, where somebody asked for them.
    """

    summaries: dict[str, Summary]
    converged: dict[str, bool]
    noise_floor: float
    reference_ms: float | None
    drift: float
    interrupted_share: float
    rounds: int
    discarded_rounds: int
    elapsed_s: float
    energy_mj: dict[str, float] | None = None
    energy_word: str = ""
    clocks: tuple[dict[str, Any], ...] = ()
    tail_intervals: dict[str, TailIntervals] | None = None


def measure_interleaved(
    candidates: Mapping[str, Run],
    *,
    seed: int,
    time_limit_s: float,
    precision: float = 0.01,
    repeats: int | None = None,
    visit_ms: float = VISIT_MS,
    settle_ms: float = SETTLE_MS,
    warmup_ms: float = 0.0,
    min_rounds: int = FEWEST_ROUNDS,
    reference: Run | None = None,
    tolerance: float = 0.05,
    tail_intervals: bool = False,
    progress: Progress | None = None,
    clock: Clock = perf_counter_ns,
    switches: Switches = involuntary_switches,
) -> Measurement:
    """Measure all candidates in rounds of random order, so that drift of the machine hits all alike.

    A round visits each candidate that is not known well enough yet: first calls that only settle caches and
    thread pools, then timed calls, of which those that lost the processor are left out (see
    ``clock.time_uninterrupted``). The reference workload is timed every 50 ms; visits beside a slow look at
    it are thrown away (at most half of a candidate's) and so repeated in later rounds. What is kept is
    brought to the reference's median speed: candidates are done at different times, and a virtual machine's
    clock was seen to fall by 40 % for minutes.

    Args:
        candidates: name to callable, such as ``Engine.prepare`` returns.
        seed: of the visiting orders.
        time_limit_s: stop after this long; the first round is always finished.
        precision: a candidate is done when its 95 % interval lies within this share of its median.
        repeats: timed calls a visit; by default what fills ``visit_ms``, from 3 to 100.
        visit_ms: time that a visit fills.
        settle_ms: untimed calls at the start of a visit, at least one.
        warmup_ms: how long each candidate is warmed up at least, within a fifth of the time limit in all;
            what does not become stable is warmed up for this long, or 0.5 s where that is longer.
        min_rounds: visits that a candidate gets at least.
        reference: a fixed workload; without it no visit is thrown away.
        tolerance: a look at the reference this much slower than its quiet level counts as disturbed.
        tail_intervals: find 95 % intervals of the 95th and 99th percentile, too.
        progress: told the share done and a line of text after each round.
        clock: counts nanoseconds.
        switches: counts how often the processor was taken away.

    Raises:
        ValueError: no candidates, or a limit that is not positive.
    """
    if not candidates or min(time_limit_s, precision, visit_ms, min_rounds) <= 0:
        raise ValueError(
            "give at least one candidate, and a positive limit, precision, visit and round count"
        )
    session = _Session(clock, switches, time_limit_s, visit_ms, settle_ms, reference)
    with _no_garbage_collection():
        session.warm_up(candidates, repeats, warmup_ms)
        rng = np.random.default_rng(seed)
        rounds, active = 0, list(candidates)
        while active and (rounds == 0 or session.elapsed_s() < time_limit_s):
            order = [active[index] for index in rng.permutation(len(active))]
            session.visit_all(order, rounds)
            rounds += 1
            summaries = session.summaries(active, tolerance)
            active = [name for name in active if not _done(summaries[name], min_rounds, precision)]
            if progress is not None:
                done = len(candidates) - len(active)
                share = max(done / len(candidates), min(session.elapsed_s() / time_limit_s, 1.0))
                progress(share, f"round {rounds}: {done} of {len(candidates)} within {precision:.1%}")
    # Judged once more at the end, because what counts as quiet was still being learnt in the early rounds.
    summaries = session.summaries(list(candidates), tolerance)
    return Measurement(
        summaries=summaries,
        converged={name: _done(summary, min_rounds, precision) for name, summary in summaries.items()},
        noise_floor=session.noise_floor(),
        reference_ms=session.log.median_ms() if reference is not None else None,
        drift=session.log.drift(),
        interrupted_share=session.interrupted_share(),
        rounds=rounds,
        discarded_rounds=session.discarded_rounds(tolerance),
        elapsed_s=session.elapsed_s(),
        tail_intervals=session.tail_intervals(list(candidates), tolerance) if tail_intervals else None,
    )


def _done(summary: Summary, min_rounds: int, precision: float) -> bool:
    return summary.rounds >= min_rounds and summary.within(precision)


@dataclass
class _Visits:
    """One candidate's visits: their calls, the look at the reference before each, and its round."""

    run: Run
    repeats: int
    batches: list[Batch] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)


class _Session:
    """The state of one measurement: the clock, the reference and all visits so far."""

    def __init__(
        self,
        clock: Clock,
        switches: Switches,
        time_limit_s: float,
        visit_ms: float,
        settle_ms: float,
        reference: Run | None,
    ) -> None:
        self._clock = clock
        self._switches = switches
        self._start = clock()
        self._overhead_ms = timer_overhead_ms(clock=clock)
        self._time_limit_s = time_limit_s
        self._visit_ms = visit_ms
        self._settle_ms = settle_ms
        self._visits: dict[str, _Visits] = {}
        self._reference = reference
        self.log = ReferenceLog(None)

    def elapsed_s(self) -> float:
        """Return the time since the start in seconds."""
        return (self._clock() - self._start) / 1e9

    def warm_up(self, candidates: Mapping[str, Run], repeats: int | None, least_ms: float) -> None:
        """Warm everything up, within a fifth of the time, and learn how many calls a visit needs."""
        limit_s = min(
            max(_WARM_UP_LIMIT_S, least_ms / 1000), WARM_UP_SHARE * self._time_limit_s / len(candidates)
        )

        def warmed(run: Run) -> _Visits:
            call_ms = warm_up(run, limit_s=limit_s, least_ms=least_ms, clock=self._clock).call_ms
            return _Visits(run, repeats or calls_for(self._visit_ms, call_ms))

        self._visits = {name: warmed(run) for name, run in candidates.items()}
        if self._reference is not None:
            reference = warmed(self._reference)
            self.log.time_once = lambda: float(np.median(self._time(reference).samples_ms))

    def visit_all(self, order: list[str], round_index: int) -> None:
        """Visit the candidates in ``order``, looking at the reference before, after and every 50 ms."""
        look = self.log.look(round_index)
        looked_at = self._clock()
        for name in order:
            if round_index > 0 and self.elapsed_s() >= self._time_limit_s:
                break
            if (self._clock() - looked_at) / 1e6 >= CHECK_EVERY_MS:
                look = self.log.look(round_index)
                looked_at = self._clock()
            one = self._visits[name]
            one.batches.append(self._time(one))
            one.looks.append(look)
            one.rounds.append(round_index)
        self.log.look(round_index)

    def summaries(self, names: list[str], tolerance: float) -> dict[str, Summary]:
        """Summarise each named candidate from its undisturbed visits, all at the reference's median speed."""
        noise = self.log.noise()
        return {name: summarise_rounds(calls, noise=noise) for name, calls in self._calls(names, tolerance)}

    def tail_intervals(self, names: list[str], tolerance: float) -> dict[str, TailIntervals]:
        """Find the intervals of each named candidate's tail, from the same calls."""
        return {
            name: TailIntervals(*percentile_intervals(calls, (95, 99)))
            for name, calls in self._calls(names, tolerance)
        }

    def _calls(self, names: list[str], tolerance: float) -> Iterator[tuple[str, list[Samples]]]:
        """Each candidate's latencies, one array an undisturbed visit."""
        slowness = self.log.slowness()
        for name in names:
            one = self._visits[name]
            kept = np.flatnonzero(self._keep(one, tolerance))
            yield name, [one.batches[index].samples_ms / slowness[one.looks[index]] for index in kept]

    def discarded_rounds(self, tolerance: float) -> int:
        """Count the rounds of which a visit was thrown away."""
        rounds: set[int] = set()
        for one in self._visits.values():
            rounds.update(np.array(one.rounds)[~self._keep(one, tolerance)].tolist())
        return len(rounds)

    def interrupted_share(self) -> float:
        """Return the share of the candidates' timed calls that lost the processor."""
        batches = [batch for one in self._visits.values() for batch in one.batches]
        return sum(batch.interrupted for batch in batches) / sum(batch.calls for batch in batches)

    def _keep(self, one: _Visits, tolerance: float) -> NDArray[np.bool_]:
        disturbance = self.log.disturbance()[one.looks]
        # A visit without one whole call says less than any slow one.
        spoilt = np.array([batch.spoilt for batch in one.batches])
        return keep_quiet(np.where(spoilt, np.inf, disturbance), tolerance)

    def noise_floor(self) -> float:
        """Return the reference's repeat noise, or without one the candidates' own."""
        if self._reference is not None:
            return self.log.noise()
        spreads = [
            relative_spread(np.array([np.median(batch.samples_ms) for batch in one.batches]))
            for one in self._visits.values()
        ]
        return float(np.median(spreads))

    def _time(self, one: _Visits) -> Batch:
        """Settle, then time one visit."""
        start = self._clock()
        one.run()
        while (self._clock() - start) / 1e6 < self._settle_ms:
            one.run()
        return time_uninterrupted(
            one.run,
            one.repeats,
            clock=self._clock,
            switches=self._switches,
            overhead_ms=self._overhead_ms,
        )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
