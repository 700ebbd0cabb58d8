import numpy as np
import pytest

from nat2deploy.measure.clock import (
    calls_for,
    involuntary_switches,
    time_batch,
    time_uninterrupted,
    timer_overhead_ms,
    warm_up,
)


def test_each_call_is_timed_by_itself(fake_time):
    latencies = iter([3.0, 1.0, 2.0])
    samples = time_batch(fake_time.workload(lambda: next(latencies)), 3, clock=fake_time)
    np.testing.assert_allclose(samples, [3.0, 1.0, 2.0])


def test_the_clocks_own_cost_is_subtracted(fake_time):
    def slow_clock():
        fake_time.spend(0.25)
        return fake_time.now_ns

    assert timer_overhead_ms(clock=slow_clock) == pytest.approx(0.25)
    samples = time_batch(fake_time.workload(1.0), 5, clock=slow_clock)
    np.testing.assert_allclose(samples, 1.0)
    known = time_batch(fake_time.workload(1.0), 5, clock=slow_clock, overhead_ms=0.05)
    np.testing.assert_allclose(known, 1.2)


def test_a_call_shorter_than_the_clocks_cost_stays_positive(fake_time):
    assert time_batch(fake_time.workload(0.1), 2, clock=fake_time, overhead_ms=5.0).min() > 0


def test_the_real_clock_runs_forward():
    calls = []
    samples = time_batch(lambda: calls.append(1), 20)
    assert len(calls) == len(samples) == 20
    assert samples.min() > 0
    assert 0 <= timer_overhead_ms(repeats=50) < 1


def test_repeats_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        time_batch(lambda: None, 0)


@pytest.mark.parametrize(("call_ms", "calls"), [(0.001, 100), (0.1, 40), (1.0, 4), (50.0, 3)])
def test_calls_fill_a_visit_within_bounds(call_ms, calls):
    assert calls_for(4.0, call_ms) == calls


def test_warm_up_goes_on_until_the_latency_has_settled(fake_time):
    def cooling():
        return 1.0 + 10.0 * 0.8 ** (fake_time.now_ms / 10)

    done = warm_up(fake_time.workload(cooling), limit_s=60, clock=fake_time)
    assert done.stable
    # From 11 ms a call down to where a window of 5 ms changes it by less than 2 %.
    assert 1.0 < done.call_ms < 1.2
    assert cooling() < done.call_ms


def test_warm_up_gives_up_at_the_limit_and_says_so(fake_time):
    state = {"latency": 1.0}

    def ever_slower():
        state["latency"] *= 1.05
        return state["latency"]

    done = warm_up(fake_time.workload(ever_slower), limit_s=0.5, clock=fake_time)
    assert not done.stable
    assert fake_time.now_ms >= 500


def test_warm_up_lasts_at_least_as_long_as_told(fake_time):
    done = warm_up(fake_time.workload(1.0), limit_s=60, least_ms=100, clock=fake_time)
    assert done.stable
    assert 100 <= fake_time.now_ms <= 110
    assert done.calls == fake_time.now_ms


def test_warm_up_of_something_steady_is_short(fake_time):
    assert warm_up(fake_time.workload(1.0), limit_s=60, clock=fake_time).calls == 13


def interrupted_when(fake_time, cut):
    """A workload of 1 ms that loses 5 ms to others at the calls that ``cut`` names, and its counter."""
    state = {"call": 0, "switches": 0}

    def run():
        if cut(state["call"]):
            state["switches"] += 1
            fake_time.spend(5.0)
        state["call"] += 1
        fake_time.spend(1.0)

    return run, lambda: state["switches"]


def test_interrupted_calls_are_made_again(fake_time):
    run, switches = interrupted_when(fake_time, lambda call: call in (0, 2))
    batch = time_uninterrupted(run, 4, clock=fake_time, switches=switches, overhead_ms=0.25)
    assert batch.samples_ms.tolist() == [0.75] * 4
    assert (batch.calls, batch.interrupted, batch.spoilt) == (6, 2, False)


def test_patience_ends_with_the_whole_calls_there_are(fake_time):
    run, switches = interrupted_when(fake_time, lambda call: call != 5)
    batch = time_uninterrupted(run, 4, clock=fake_time, switches=switches)
    assert batch.samples_ms.tolist() == [1.0]
    assert (batch.calls, batch.interrupted) == (12, 11)


def test_where_every_call_was_interrupted_all_are_kept(fake_time):
    run, switches = interrupted_when(fake_time, lambda call: True)
    batch = time_uninterrupted(run, 2, clock=fake_time, switches=switches)
    assert batch.samples_ms.tolist() == [6.0] * 6
    assert batch.spoilt


def test_the_kernel_counts_interruptions_upwards():
    first = involuntary_switches()
    assert isinstance(first, int)
    assert involuntary_switches() >= first >= 0
