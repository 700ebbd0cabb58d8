import gc
from collections import Counter
from functools import partial

import numpy as np
import pytest

from nat2deploy.measure import interleave

# The made-up clock with no interruptions, unless a test makes them up too.
measure_interleaved = partial(interleave.measure_interleaved, switches=lambda: 0)


class Noisy:
    """A workload with a level, a fresh deviation for each visit's calls, and a count of calls."""

    def __init__(self, fake_time, level_ms, noise=0.0, seed=0):
        self.rng, self.level_ms, self.noise, self.time = (
            np.random.default_rng(seed),
            level_ms,
            noise,
            fake_time,
        )
        self.calls = 0

    def __call__(self):
        self.calls += 1
        self.time.spend(self.level_ms * (1 + self.noise * self.rng.standard_normal()))


def runs_of(trace):
    """The trace with repeats that follow each other taken as one."""
    return [name for index, name in enumerate(trace) if index == 0 or trace[index - 1] != name]


def test_medians_are_found_and_named_in_order(fake_time):
    levels = {"c": 3.0, "a": 1.0, "b": 0.2}
    runs = {name: fake_time.workload(level) for name, level in levels.items()}
    found = measure_interleaved(runs, seed=0, time_limit_s=60, clock=fake_time)
    assert list(found.summaries) == ["c", "a", "b"]
    assert {name: summary.median_ms for name, summary in found.summaries.items()} == pytest.approx(levels)
    assert all(found.converged.values())
    assert (found.rounds, found.discarded_rounds, found.drift) == (6, 0, 0.0)
    assert found.reference_ms is None
    assert found.elapsed_s == pytest.approx(fake_time.now_ms / 1000)


def test_rounds_visit_everyone_once_in_an_order_set_by_the_seed(fake_time):
    def trace_of(seed):
        trace = []

        def workload(name):
            return lambda: (trace.append(name), fake_time.spend(1.0))

        runs = {name: workload(name) for name in "abcdef"}
        measure_interleaved(runs, seed=seed, time_limit_s=60, settle_ms=0.5, repeats=2, clock=fake_time)
        # One call settles, two are timed; before them comes the warm-up, everyone in turn.
        return trace[-6 * 6 * 3 :]

    first = trace_of(1)
    rounds = [first[start : start + 18] for start in range(0, len(first), 18)]
    assert all(Counter(one) == dict.fromkeys("abcdef", 3) for one in rounds)
    assert all(len(runs_of(one)) == 6 for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert trace_of(1) == first
    assert trace_of(2) != first


def test_the_first_calls_of_a_visit_are_not_counted(fake_time):
    last = {"name": ""}

    def cold_after_a_switch(name):
        def run():
            fake_time.spend(1.0 if last["name"] == name else 50.0)
            last["name"] = name

        return run

    runs = {name: cold_after_a_switch(name) for name in "ab"}
    found = measure_interleaved(runs, seed=0, time_limit_s=60, clock=fake_time)
    assert [summary.p99_ms for summary in found.summaries.values()] == [1.0, 1.0]


def test_settling_fills_its_time(fake_time):
    quiet_after = {"call": 0}

    def run():
        quiet_after["call"] += 1
        fake_time.spend(0.5)

    found = measure_interleaved(
        {"a": run}, seed=0, time_limit_s=60, settle_ms=5.0, repeats=1, min_rounds=6, clock=fake_time
    )
    warm = quiet_after["call"] - 6 * 11  # ten calls settle, one is timed
    assert found.summaries["a"].samples == 6
    assert 0 < warm < 30


def test_who_is_known_well_enough_drops_out(fake_time):
    steady, shaky = Noisy(fake_time, 1.0), Noisy(fake_time, 1.0, noise=0.1)
    found = measure_interleaved({"steady": steady, "shaky": shaky}, seed=0, time_limit_s=60, clock=fake_time)
    assert found.summaries["steady"].rounds == 6
    assert found.summaries["shaky"].rounds > 6
    assert all(found.converged.values())
    assert found.summaries["shaky"].within(0.01)
    assert found.summaries["shaky"].median_ms == pytest.approx(1.0, rel=0.02)


def test_time_limit_ends_it_and_says_who_is_not_known(fake_time):
    runs = {"steady": Noisy(fake_time, 1.0), "shaky": Noisy(fake_time, 1.0, noise=0.5)}
    found = measure_interleaved(runs, seed=0, time_limit_s=0.5, clock=fake_time)
    assert found.converged == {"steady": True, "shaky": False}
    assert found.elapsed_s < 0.6


def test_the_first_round_is_finished_whatever_the_limit(fake_time):
    runs = {name: fake_time.workload(40.0) for name in "abcd"}
    found = measure_interleaved(runs, seed=0, time_limit_s=0.001, clock=fake_time)
    assert found.rounds == 1
    assert [summary.median_ms for summary in found.summaries.values()] == [40.0] * 4
    assert not any(found.converged.values())


def test_what_was_visited_once_is_not_taken_for_exact(fake_time):
    """Alike runs, told apart by chance alone: their intervals must say how far the chance goes."""
    rng = np.random.default_rng(0)
    runs = {str(i): fake_time.workload(lambda: 20 * rng.uniform(0.8, 1.25)) for i in range(40)}
    reference = fake_time.workload(0.1)
    found = measure_interleaved(runs, seed=0, time_limit_s=0.001, reference=reference, clock=fake_time)
    assert found.rounds == 1
    widths = [summary.relative_ci_width for summary in found.summaries.values()]
    assert min(widths) > 0
    medians = np.array([summary.median_ms for summary in found.summaries.values()])
    assert np.median(widths) / 2 > 0.7 * medians.std() / medians.mean()


def test_visits_beside_a_slow_reference_are_thrown_away_and_repeated(fake_time):
    def slow():
        return 3.0 if 120 <= fake_time.now_ms < 200 else 1.0

    runs = {name: fake_time.workload(slow) for name in "abcd"}
    seen = measure_interleaved(
        runs, seed=0, time_limit_s=60, reference=fake_time.workload(slow), clock=fake_time
    )
    assert seen.discarded_rounds >= 1
    assert seen.drift >= 1
    assert seen.noise_floor == pytest.approx(0)
    assert seen.reference_ms == 1.0
    assert all(summary.p99_ms == 1.0 for summary in seen.summaries.values())
    assert all(summary.rounds >= 6 for summary in seen.summaries.values())
    assert seen.rounds > 6


def test_a_clock_that_falls_for_good_hits_early_and_late_candidates_alike(fake_time):
    rng = np.random.default_rng(0)

    def slowness():
        return 1.4 if fake_time.now_ms > 700 else 1.0

    runs = {
        "early": fake_time.workload(slowness),
        "late": fake_time.workload(lambda: slowness() * float(rng.normal(1.0, 0.05))),
    }
    found = measure_interleaved(
        runs, seed=0, time_limit_s=5, repeats=3, reference=fake_time.workload(slowness), clock=fake_time
    )
    early, late = found.summaries["early"], found.summaries["late"]
    assert early.rounds < late.rounds
    assert late.median_ms == pytest.approx(early.median_ms, rel=0.02)
    assert early.median_ms == pytest.approx(found.reference_ms, rel=0.001)


def test_without_a_reference_the_same_disturbance_stays_in_the_tail(fake_time):
    def slow():
        return 3.0 if 120 <= fake_time.now_ms < 160 else 1.0

    runs = {name: fake_time.workload(slow) for name in "abcd"}
    found = measure_interleaved(runs, seed=0, time_limit_s=60, clock=fake_time)
    assert found.discarded_rounds == 0
    assert max(summary.p99_ms for summary in found.summaries.values()) == 3.0


def test_a_machine_that_is_never_quiet_is_measured_all_the_same(fake_time):
    rng = np.random.default_rng(0)
    reference = fake_time.workload(lambda: float(rng.choice([1.0, 1.5, 2.0, 3.0])))
    found = measure_interleaved(
        {"a": fake_time.workload(1.0)}, seed=0, time_limit_s=1.0, reference=reference, clock=fake_time
    )
    assert found.summaries["a"].rounds * 2 >= found.rounds
    assert found.noise_floor > 0.05
    assert found.discarded_rounds > 0


def test_interrupted_calls_are_left_out_and_counted(fake_time):
    state = {"calls": 0, "switches": 0}

    def run():
        state["calls"] += 1
        if state["calls"] % 3 == 0:  # another process has the core for 4 ms
            state["switches"] += 1
            fake_time.spend(4.0)
        fake_time.spend(2.0)

    found = measure_interleaved(
        {"a": run}, seed=0, time_limit_s=60, clock=fake_time, switches=lambda: state["switches"]
    )
    assert found.summaries["a"].median_ms == found.summaries["a"].p99_ms == 2.0
    assert found.interrupted_share == pytest.approx(1 / 3, abs=0.1)


def test_visits_without_one_whole_call_go_first(fake_time):
    state = {"switches": 0}

    def run():
        if fake_time.now_ms < 250:
            state["switches"] += 1
            fake_time.spend(9.0)
        fake_time.spend(1.0)

    found = measure_interleaved(
        {"a": run}, seed=0, time_limit_s=60, clock=fake_time, switches=lambda: state["switches"]
    )
    assert found.summaries["a"].p99_ms == 1.0
    assert found.discarded_rounds > 0


def test_repeats_fit_the_latency(fake_time):
    runs = {
        "fast": fake_time.workload(0.001),
        "middle": fake_time.workload(0.5),
        "slow": fake_time.workload(20.0),
    }
    found = measure_interleaved(runs, seed=0, time_limit_s=60, clock=fake_time)
    calls = {name: summary.samples / summary.rounds for name, summary in found.summaries.items()}
    assert calls == {"fast": 100, "middle": 8, "slow": 3}
    fixed = measure_interleaved(runs, seed=0, time_limit_s=60, repeats=7, clock=fake_time)
    assert {summary.samples for summary in fixed.summaries.values()} == {42}


def test_progress_grows_to_one(fake_time):
    told = []
    measure_interleaved(
        {"a": Noisy(fake_time, 1.0), "b": Noisy(fake_time, 1.0, noise=0.05)},
        seed=0,
        time_limit_s=60,
        progress=lambda share, text: told.append((share, text)),
        clock=fake_time,
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told[-1][1].endswith("2 of 2 within 1.0%")


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_collection_while_timing_and_its_state_given_back(fake_time, enabled):
    before, seen = gc.isenabled(), set()

    def run():
        seen.add(gc.isenabled())
        fake_time.spend(1.0)
        if len(seen) > 5:
            raise AssertionError

    try:
        (gc.enable if enabled else gc.disable)()
        measure_interleaved({"a": run}, seed=0, time_limit_s=60, clock=fake_time)
        assert seen == {False}
        assert gc.isenabled() is enabled

        def broken():
            raise RuntimeError("the engine failed")

        with pytest.raises(RuntimeError, match="the engine failed"):
            measure_interleaved({"a": broken}, seed=0, time_limit_s=60, clock=fake_time)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(("warmup_ms", "least", "most"), [(0, 10, 20), (70, 70, 80), (1e9, 95, 110)])
def test_a_warm_up_lasts_as_long_as_asked_for_within_a_fifth_of_the_time(fake_time, warmup_ms, least, most):
    """Two candidates that settle at once; with the second begins what is measured."""
    began = {}

    def note(name):
        def run():
            began.setdefault(name, fake_time.now_ms)
            fake_time.spend(0.5)

        return run

    measure_interleaved(
        {"a": note("a"), "b": note("b")},
        seed=0,
        time_limit_s=1.0,
        warmup_ms=warmup_ms,
        clock=fake_time,
    )
    assert least <= began["b"] - began["a"] <= most


@pytest.mark.parametrize(
    "wrong", [{"candidates": {}}, {"time_limit_s": 0}, {"precision": -0.1}, {"min_rounds": 0}]
)
def test_nonsense_is_refused(fake_time, wrong):
    arguments = {"candidates": {"a": fake_time.workload(1.0)}, "seed": 0, "time_limit_s": 1.0, **wrong}
    with pytest.raises(ValueError, match="at least one candidate"):
        measure_interleaved(arguments.pop("candidates"), clock=fake_time, **arguments)
