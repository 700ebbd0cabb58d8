import numpy as np
import pytest

from nat2deploy.measure.reference import ReferenceLog, keep_quiet


def log(*looks_ms, rounds=None):
    values = iter(looks_ms)
    made = ReferenceLog(lambda: next(values))
    for index in range(len(looks_ms)):
        assert made.look(rounds[index] if rounds else index) == index
    return made


def test_a_slow_look_disturbs_what_comes_before_and_after():
    disturbance = log(1.0, 1.0, 1.5, 1.0, 1.0).disturbance()
    np.testing.assert_allclose(disturbance, [0, 0.5, 0.5, 0, 0])


def test_quiet_is_the_machine_left_alone_even_if_it_is_busy_most_of_the_time():
    disturbance = log(1.4, 1.4, 1.4, 1.4, 1.0, 1.0, 1.0).disturbance()
    assert disturbance[-2:].tolist() == [0, 0]
    assert disturbance[0] == pytest.approx(0.4)


def test_drift_is_the_worst_round_against_all_looks():
    made = log(1.0, 1.0, 9.0, 1.1, 1.1, 1.0, rounds=[0, 0, 0, 1, 1, 2])
    assert made.drift() == pytest.approx(1.1 / 1.05 - 1)
    assert made.median_ms() == pytest.approx(1.05)


def test_slowness_follows_a_clock_that_changes_and_no_single_look():
    made = log(*[1.0] * 5, 9.0, *[1.0] * 5, *[1.5] * 6)
    np.testing.assert_allclose(made.slowness(), [1.0] * 10 + [1.25] + [1.5] * 6)


def test_noise_is_robust_to_one_outlier():
    assert log(1.0, 1.0, 1.0, 1.0, 7.0).noise() == 0


def test_without_a_reference_the_machine_counts_as_quiet():
    made = ReferenceLog(None)
    made.look(0)
    made.look(0)
    assert made.disturbance().tolist() == [0, 0]
    assert made.drift() == 0


@pytest.mark.parametrize(
    ("disturbance", "kept"),
    [
        ([0.0, 0.1, 0.0, 0.0], [0, 2, 3]),
        ([0.0, 0.05, -0.2], [0, 1, 2]),
        ([0.3, 0.2, 0.4, 0.1], [1, 3]),  # never fewer than half: the least disturbed stay
        ([0.3, 0.2, 0.4], [0, 1]),
        ([0.3], [0]),
        ([0.2, 0.2, 0.2], [0, 1]),
    ],
)
def test_disturbed_visits_go_but_at_most_half(disturbance, kept):
    assert np.flatnonzero(keep_quiet(np.array(disturbance), 0.05)).tolist() == kept
