import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from nat2deploy.measure.statistics import (
    FEWEST_ROUNDS,
    Summary,
    median_interval,
    percentile_intervals,
    relative_spread,
    summarise,
    summarise_rounds,
)

latencies = st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=60)


@settings(max_examples=80, deadline=None)
@given(st.lists(latencies, min_size=1, max_size=20))
def test_interval_holds_the_median_and_percentiles_are_ordered(rounds):
    summary = summarise_rounds(rounds)
    assert summary.ci_low_ms <= summary.median_ms <= summary.ci_high_ms
    assert summary.median_ms <= summary.p95_ms <= summary.p99_ms <= max(map(max, rounds))
    assert summary.samples == sum(map(len, rounds))
    assert summary.rounds == len(rounds)


@settings(max_examples=50, deadline=None)
@given(latencies, st.floats(0.1, 10))
def test_summary_scales_with_the_unit_and_ignores_order(samples, factor):
    summary = summarise(samples)
    scaled = summarise([value * factor for value in reversed(samples)])
    assert scaled.median_ms == pytest.approx(summary.median_ms * factor)
    assert scaled.ci_low_ms == pytest.approx(summary.ci_low_ms * factor)
    assert scaled.p99_ms == pytest.approx(summary.p99_ms * factor)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Ranks for 95 % from the binomial table (for example Conover, Practical Nonparametric Statistics).
    [(1, 1, 1), (5, 1, 5), (6, 1, 6), (8, 1, 8), (9, 2, 8), (15, 4, 12), (20, 6, 15), (100, 40, 61)],
)
def test_ranks_of_the_interval(count, low, high):
    values = np.arange(1, count + 1, dtype=np.float64)
    np.random.default_rng(0).shuffle(values)
    assert median_interval(values) == (low, high)


def test_ranks_are_the_binomial_quantile_for_any_count():
    counts = np.arange(1, 400)
    expected = np.maximum(binom.ppf(0.025, counts, 0.5), 1)
    assert [median_interval(np.arange(1.0, n + 1))[0] for n in counts] == expected.tolist()


@pytest.mark.parametrize("count", [FEWEST_ROUNDS, 13, 40])
def test_interval_holds_the_true_median_as_often_as_it_says(count):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        low, high = median_interval(rng.lognormal(size=count))
        hits += low <= 1.0 <= high
    assert hits / 2000 >= 0.94


def test_calls_of_one_round_do_not_narrow_the_interval():
    rng = np.random.default_rng(2)
    levels = 1 + 0.05 * rng.standard_normal(10)  # the machine's state, one a round
    rounds = [level + 0.001 * rng.standard_normal(200) for level in levels]
    honest, naive = summarise_rounds(rounds), summarise(np.concatenate(rounds))
    assert honest.relative_ci_width > 3 * naive.relative_ci_width
    assert honest.ci_low_ms <= np.median(levels) <= honest.ci_high_ms


def test_one_bad_round_in_nine_moves_neither_median_nor_interval():
    rounds = [[1.0, 1.0, 1.0]] * 4 + [[1.01] * 3] * 4
    with_bad = summarise_rounds([*rounds, [9.0, 9.0, 9.0]])
    assert (with_bad.median_ms, with_bad.ci_high_ms) == (1.01, 1.01)
    assert with_bad.p99_ms == 9.0


def test_one_round_is_known_as_well_as_its_calls_and_the_machine():
    assert summarise_rounds([[9.0, 10.0, 12.0]]).relative_ci_width == pytest.approx(0.3)
    alone = summarise_rounds([[10.0]], noise=0.01)
    assert (alone.ci_low_ms, alone.ci_high_ms) == pytest.approx((10 / 1.02, 10.2))
    four = summarise_rounds([[10.0]] * 4, noise=0.01)
    assert (four.ci_low_ms, four.ci_high_ms) == pytest.approx((10 / 1.01, 10.1))
    apart = summarise_rounds([[8.0] * 3, [12.0] * 3], noise=0.01)
    assert (apart.ci_low_ms, apart.ci_high_ms) == (8.0, 12.0)
    noisy = summarise_rounds([[10.0]], noise=3.0)
    assert noisy.ci_low_ms > 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_few_rounds_hold_the_true_median_about_as_often_as_many(count):
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        rounds = [np.exp(0.02 * rng.standard_normal() + 0.005 * rng.standard_normal(5)) for _ in range(count)]
        found = summarise_rounds(rounds, noise=0.02)
        hits += found.ci_low_ms <= 1.0 <= found.ci_high_ms
    assert hits / 1000 >= 0.93


def test_from_six_rounds_on_they_speak_for_themselves():
    rounds = [[9.0, 10.0, 12.0]] * FEWEST_ROUNDS
    assert summarise_rounds(rounds, noise=0.5).relative_ci_width == 0.0


def test_precision_is_judged_on_both_sides():
    summary = Summary(10.0, 11.0, 12.0, 9.95, 10.2, 60, 6)
    assert summary.relative_ci_width == pytest.approx(0.025)
    assert summary.within(0.02)
    assert not summary.within(0.019)


def test_relative_spread_is_the_standard_deviation_of_a_normal():
    values = np.random.default_rng(3).normal(5.0, 0.1, 20000)
    assert relative_spread(values) == pytest.approx(0.02, rel=0.05)
    assert relative_spread(np.array([2.0, 2.0, 2.0, 50.0])) == 0.0


@pytest.mark.parametrize("samples", [[], [0.0], [-1.0], [np.nan], [np.inf], [[1.0]]])
def test_what_is_no_latency_is_refused(samples):
    with pytest.raises(ValueError, match="samples must be"):
        summarise(samples)
    with pytest.raises(ValueError, match="samples must be"):
        summarise_rounds([[1.0], samples])


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="no rounds"):
        summarise_rounds([])


@settings(max_examples=50, deadline=None)
@given(st.lists(latencies, min_size=1, max_size=20))
def test_tail_intervals_hold_the_percentiles_and_repeat(rounds):
    arrays = [np.array(calls) for calls in rounds]
    found = percentile_intervals(arrays, (95, 99))
    for (low, high), point in zip(found, np.percentile(np.concatenate(arrays), (95, 99)), strict=True):
        assert low <= point <= high
    assert percentile_intervals(arrays, (95, 99)) == found


def test_tail_intervals_hold_the_true_tail_about_as_often_as_they_say():
    """Calls of a round share an offset, as on a machine whose clock moves."""
    rng = np.random.default_rng(1)
    true = np.quantile(np.repeat(rng.normal(0, 1, 20_000), 20) + rng.normal(0, 0.3, 400_000), 0.95) + 20
    held = 0
    for _ in range(200):
        rounds = [20 + offset + rng.normal(0, 0.3, 20) for offset in rng.normal(0, 1, 60)]
        ((low, high),) = percentile_intervals(rounds, (95,))
        held += low <= true <= high
    assert 0.85 <= held / 200 <= 0.99


def test_a_round_counts_as_one_and_not_as_its_calls():
    rng = np.random.default_rng(2)
    rounds = [np.full(50, value) for value in rng.normal(10, 1, 30)]
    ((low, high),) = percentile_intervals(rounds, (95,))
    ((alone_low, alone_high),) = percentile_intervals([np.array([v]) for r in rounds for v in r], (95,))
    assert high - low > 2 * (alone_high - alone_low)
