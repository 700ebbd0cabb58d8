"""Which candidates are worth an evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.search.subset import select_diverse

NOTHING = np.empty((0, 2))


def curve(costs):
    """A front: the error falls as the cost rises."""
    costs = np.asarray(costs, dtype=float)
    return np.stack([1.0 / (1.0 + costs), costs], axis=1)


def choose(objectives, count, violations=None, known=NOTHING):
    violations = np.zeros(len(objectives)) if violations is None else np.asarray(violations, dtype=float)
    return select_diverse(objectives, violations, known, count).tolist()


def test_nothing_to_choose_from():
    assert choose(NOTHING, 4) == []


def test_fewer_than_wanted_are_all_chosen():
    assert sorted(choose(curve([1, 2, 3]), 8)) == [0, 1, 2]


def test_the_chosen_lie_apart_in_cost():
    crowd = [0, 0.1, 0.2, 0.3, 5, 9.9, 10]
    assert {round(crowd[i]) for i in choose(curve(crowd), 4)} == {0, 5, 10}


def test_of_a_long_front_both_ends_and_the_middle_are_chosen():
    costs = np.linspace(0, 10, 100)
    chosen = sorted(costs[i] for i in choose(curve(costs), 8, known=curve([10.5])))
    assert chosen[0] < 1 and chosen[-1] > 9
    assert np.diff(chosen).max() < 2.6


def test_the_archive_front_is_kept_away_from():
    front = curve([0, 1, 2, 3])
    known = curve([0, 1, 2])
    assert choose(front, 1, known=known) == [3]


@pytest.mark.parametrize("width", [2, 3])
def test_every_pick_is_the_farthest_from_all_before_it(width):
    rng = np.random.default_rng(1)
    objectives = rng.random((9, width))
    known = rng.random((3, width))
    chosen = choose(objectives, 5, known=known)
    span = np.ptp(np.concatenate([objectives[:, 1:], known[:, 1:]]), axis=0)
    before = list(known[:, 1:] / span)
    for step, pick in enumerate(chosen):
        distances = [min(np.linalg.norm(row[1:] / span - b) for b in before) for row in objectives]
        left = [i for i in range(9) if i not in chosen[:step]]
        assert distances[pick] == pytest.approx(max(distances[i] for i in left))
        before.append(objectives[pick, 1:] / span)


def test_dominated_rows_wait_behind_the_front():
    good = curve([0, 1, 2, 3, 4, 5])
    bad = good + 10.0
    assert all(i < 6 for i in choose(np.concatenate([good, bad]), 3))


def test_equal_costs_go_to_the_lower_error():
    objectives = np.array([[0.5, 1.0], [0.2, 1.0], [0.9, 1.0], [0.4, 1.0]])
    assert choose(objectives, 2) == [1, 3]


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 12), st.integers(0, 4))
def test_no_infeasible_row_while_a_feasible_one_is_left(seed, count, feasible, known):
    rng = np.random.default_rng(seed)
    objectives = rng.random((12, 2))
    violations = np.where(np.arange(12) < feasible, 0.0, rng.random(12) + 0.01)
    objectives[feasible:] *= 0.1  # infeasible rows look better
    chosen = choose(objectives, count, violations, rng.random((known, 2)))
    assert len(chosen) == len(set(chosen)) == count
    inside = [i for i in chosen if violations[i] == 0.0]
    assert len(inside) == min(count, feasible)
    over = sorted(violations[i] for i in chosen if violations[i] > 0.0)
    assert over == sorted(violations[feasible:])[: count - len(inside)]


def test_the_choice_is_the_same_each_time():
    objectives = np.random.default_rng(3).random((30, 3))
    known = np.random.default_rng(4).random((5, 3))
    assert choose(objectives, 8, known=known) == choose(objectives, 8, known=known)
