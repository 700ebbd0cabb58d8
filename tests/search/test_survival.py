"""Survival against the definitions, written out slowly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nat2deploy.search.survival import non_dominated, reference_directions, survivors

few_values = st.integers(min_value=0, max_value=5).map(float)
matrices = arrays.arrays(np.float64, st.tuples(st.integers(0, 14), st.integers(2, 3)), elements=few_values)


def dominates(a, b) -> bool:
    return bool((a <= b).all() and (a < b).any())


@given(matrices)
def test_non_dominated_is_what_no_other_row_dominates(rows):
    expected = [i for i, row in enumerate(rows) if not any(dominates(other, row) for other in rows)]
    assert non_dominated(rows).tolist() == expected


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("count", [0, -2])
def test_where_no_place_is_left_none_survive(width, count):
    objectives, violations = sample(6, width, 1, infeasible=2)
    assert survivors(objectives, violations, count, 0).tolist() == []


def sample(rows: int, width: int, seed: int, infeasible: int = 0):
    """Random objectives, the last ``infeasible`` of them in violation (and better than all others)."""
    rng = np.random.default_rng(seed)
    objectives = rng.random((rows, width))
    violations = np.zeros(rows)
    if infeasible:
        objectives[-infeasible:] *= 0.01
        violations[-infeasible:] = rng.permutation(infeasible) + 1.0
    return objectives, violations


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 5, 9, 12])
def test_feasible_rows_come_first_then_the_least_violating(width, count):
    objectives, violations = sample(12, width, seed=3, infeasible=5)
    kept = survivors(objectives, violations, count, seed=0)
    assert len(kept) == count == len(set(kept.tolist()))
    assert kept.tolist() == sorted(kept.tolist())
    feasible = [i for i in kept if violations[i] == 0.0]
    assert len(feasible) == min(count, 7)
    over = sorted(violations[i] for i in kept if violations[i] > 0.0)
    assert over == sorted(violations[violations > 0.0])[: count - len(feasible)]


def test_among_equal_violations_the_more_accurate_stays():
    objectives = np.array([[0.5, 1.0], [0.2, 1.0], [0.3, 1.0], [0.9, 1.0]])
    assert survivors(objectives, np.ones(4), 2, seed=0).tolist() == [1, 2]


@pytest.mark.parametrize("count", [12, 13, 100])
def test_all_stay_where_there_is_room(count):
    objectives, violations = sample(12, 2, seed=1, infeasible=3)
    assert survivors(objectives, violations, count, seed=0).tolist() == list(range(12))


def test_one_objective_keeps_the_lowest():
    objectives, violations = sample(30, 1, seed=2)
    expected = np.sort(np.argsort(objectives[:, 0])[:7])
    assert survivors(objectives, violations, 7, seed=0).tolist() == expected.tolist()


def ranks(objectives) -> np.ndarray:
    """Non-dominated rank of every row, by peeling fronts off."""
    left, rank, level = set(range(len(objectives))), np.zeros(len(objectives), int), 0
    while left:
        front = [i for i in left if not any(dominates(objectives[j], objectives[i]) for j in left)]
        rank[front], level = level, level + 1
        left -= set(front)
    return rank


@given(st.integers(0, 10_000), st.integers(2, 3), st.integers(1, 20))
def test_a_better_rank_never_leaves_before_a_worse_one(seed, width, count):
    objectives, violations = sample(20, width, seed)
    directions = reference_directions(width, 6) if width == 2 else np.eye(3)
    kept = survivors(objectives, violations, count, seed, directions)
    assert len(kept) == count
    rank = ranks(objectives)
    gone = np.setdiff1d(np.arange(20), kept)
    assert max(rank[kept]) <= min(rank[gone], default=np.inf)


@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(0, 20))
def test_of_one_objective_none_that_leaves_is_better(seed, count, infeasible):
    objectives, violations = sample(20, 1, seed, infeasible)
    kept = survivors(objectives, violations, count, seed)
    gone = np.setdiff1d(np.arange(20), kept)
    rank = np.lexsort((objectives[:, 0], violations)).argsort()
    assert len(kept) == count
    assert max(rank[kept]) <= min(rank[gone], default=20)


def test_two_objectives_keep_both_ends_and_thin_out_the_crowd():
    x = np.array([0.0, 0.5, 0.505, 0.51, 1.0])
    kept = survivors(np.stack([x, 1 - x], axis=1), np.zeros(5), 3, seed=0)
    assert {0, 4} <= set(kept.tolist())


def test_three_objectives_keep_one_row_near_every_direction():
    corners = np.eye(3)
    crowd = np.random.default_rng(0).normal(0.35, 0.003, (20, 3))  # all of one front with the corners
    objectives = np.concatenate([crowd, 1.0 - corners * 0.99])
    front = non_dominated(objectives)
    directions = reference_directions(3, 6)
    kept = survivors(objectives, np.zeros(23), len(front), seed=0, directions=directions)
    assert kept.tolist() == front.tolist()


@pytest.mark.parametrize("width", [2, 3])
def test_the_same_seed_keeps_the_same_rows(width):
    objectives, violations = sample(60, width, seed=9)
    directions = reference_directions(width, 8)
    runs = [survivors(objectives, violations, 20, 4, directions).tolist() for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    np.random.seed(1)  # noqa: NPY002  # the global state must not matter
    assert survivors(objectives, violations, 20, 4, directions).tolist() == runs[0]


@pytest.mark.parametrize(("width", "points"), [(2, 5), (2, 30), (3, 7)])
def test_reference_directions_lie_on_the_simplex_and_apart(width, points):
    directions = reference_directions(width, points)
    assert directions.shape == (points, width)
    assert (directions >= 0).all()
    np.testing.assert_allclose(directions.sum(axis=1), 1.0)
    gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(directions, 2)]
    assert min(gaps) > 0.4 / points
    np.testing.assert_array_equal(directions, reference_directions(width, points))
