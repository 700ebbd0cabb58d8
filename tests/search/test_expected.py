"""Choosing candidates by the hypervolume that they are expected to add."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.indicators.hv import HV

from nat2deploy.search import expected
from nat2deploy.search.expected import Passed, select_expected


def select(objectives, known, count, spread=0.0, seed=0):
    objectives = np.array(objectives, dtype=float)
    spread = np.broadcast_to(np.asarray(spread, dtype=float), len(objectives))
    return select_expected(
        objectives, spread, np.array(known, dtype=float), count, np.random.default_rng(seed)
    )


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_of_errors_that_are_certain_the_first_adds_most_hypervolume(seed, costs):
    rng = np.random.default_rng(seed)
    objectives, known = rng.random((8, 1 + costs)), rng.random((4, 1 + costs))
    known[0, 1:] = objectives[:, 1:].min(axis=0)  # something is affordable everywhere
    reference = np.concatenate([objectives, known]).max(axis=0)
    volume = HV(ref_point=reference)
    added = np.array([volume(np.vstack([known, row])) for row in objectives]) - volume(known)
    first = select(objectives, known, 1, seed=seed)[0]
    # Points of cost are drawn: what is all but as good may be taken.
    assert added[first] >= added.max() - 0.05 * float(volume(np.zeros((1, 1 + costs))))


def test_what_is_expected_is_the_mean_over_what_may_be():
    rng = np.random.default_rng(3)
    errors, spread, best = np.array([0.3, 0.5]), np.array([0.1, 0.3]), np.array([0.4, 0.25])
    found = expected._improvement(errors, spread, np.zeros((2, 1)), best, np.ones((2, 1)))
    drawn = errors[:, None] + spread[:, None] * rng.standard_normal((200_000, 2, 1))
    np.testing.assert_allclose(found, np.maximum(best - drawn, 0).mean(axis=0), atol=2e-3)


def test_what_costs_more_than_the_point_improves_nothing():
    found = expected._improvement(
        np.array([0.1]), np.array([0.1]), np.array([[2.0]]), np.array([0.5, 0.5]), np.array([[1.0], [3.0]])
    )
    assert found[0, 0] == 0.0 and found[0, 1] > 0.3


def test_the_twin_of_a_chosen_row_is_worth_less_than_another():
    objectives = [[0.20, 5.0], [0.20, 5.0], [0.31, 2.0]]
    chosen = select(objectives, [[0.5, 1.0], [0.4, 4.0]], 2, spread=0.01)
    assert sorted(chosen.tolist()) in ([0, 2], [1, 2])


def test_uncertain_rows_may_be_worth_more_than_better_ones():
    objectives, known = [[0.21, 5.0], [0.22, 5.0]], [[0.5, 1.0], [0.2, 5.0]]
    assert select(objectives, known, 1, spread=[0.001, 0.05]).tolist() == [1]
    assert select(objectives, known, 1, spread=[0.01, 0.01]).tolist() == [0]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_all_rows_are_chosen_where_they_are_few_and_the_front_may_be_empty(width):
    rows = np.random.default_rng(0).random((5, width))
    assert sorted(select(rows, np.empty((0, width)), 9, spread=0.1).tolist()) == [0, 1, 2, 3, 4]


def test_of_many_rows_a_short_list_holds_the_one_that_is_best(monkeypatch):
    rng = np.random.default_rng(1)
    objectives = np.column_stack([rng.uniform(0.5, 0.9, 300), rng.random(300)])
    objectives[137] = 0.1, 0.2
    whole = select(objectives, [[0.9, 0.0]], 3, spread=0.02)
    monkeypatch.setattr(expected, "SHORT_LIST", 20)
    short = select(objectives, [[0.9, 0.0]], 3, spread=0.02)
    assert whole[0] == short[0] == 137
    assert len(set(short.tolist())) == 3


def test_of_rows_worth_nothing_the_lowest_errors_are_kept(monkeypatch):
    monkeypatch.setattr(expected, "SHORT_LIST", 3)
    objectives = [[0.9 - 0.05 * i, 1.0 + i] for i in range(8)]
    assert select(objectives, [[0.1, 1.0]], 2, spread=1e-6).tolist() == [7, 6]


def test_what_rows_pass_counts_for_them():
    objectives, known = np.array([[0.30, 5.0], [0.30, 5.0], [0.31, 5.0]]), np.array([[0.5, 1.0], [0.4, 5.0]])
    passed = Passed(np.array([2, 1, 2]), np.array([[0.6, 2.0], [0.55, 2.5], [0.41, 3.0]]), np.full(3, 1e-3))
    rng = np.random.default_rng

    def chosen(count, passed):
        return select_expected(objectives, np.full(3, 1e-3), known, count, rng(0), passed).tolist()

    assert chosen(1, None) == [0]
    assert chosen(1, passed) == [2]  # what it passes saves much from 3 on
    assert chosen(2, passed) == [2, 0]


def test_what_a_row_passes_adds_no_more_than_it_improves_beyond_it():
    row = np.array([[0.2, 1.0]])
    points, best = np.array([[0.5], [2.0]]), np.array([0.5, 0.5])
    alone = expected._gains(row, np.array([0.01]), [], best, points)
    dearer = Passed(np.array([0]), np.array([[0.3, 1.5]]), np.array([0.01]))
    cheaper = Passed(np.array([0]), np.array([[0.3, 0.4]]), np.array([0.01]))
    assert expected._gains(row, np.array([0.01]), [dearer], best, points) == pytest.approx(alone)
    with_cheaper = expected._gains(row, np.array([0.01]), [cheaper], best, points)
    assert with_cheaper[0] == pytest.approx([0.2, alone[0, 1]], abs=1e-6)


def test_what_many_rows_pass_is_found_among_the_short_list(monkeypatch):
    rng = np.random.default_rng(1)
    objectives = np.column_stack([rng.uniform(0.4, 0.5, 60), rng.uniform(3, 5, 60)])
    passed = Passed(np.array([17, 17, 40]), np.array([[0.9, 2.0], [0.1, 1.0], [0.45, 2.0]]), np.full(3, 1e-3))
    given = (objectives, np.full(60, 1e-3), np.array([[0.6, 0.5]]), 3)
    whole = select_expected(*given, np.random.default_rng(0), passed)
    assert whole[0] == 17
    monkeypatch.setattr(expected, "SHORT_LIST", 20)
    assert select_expected(*given, np.random.default_rng(0), passed)[0] == 17


def test_passed_ones_follow_the_rows_that_are_kept():
    passed = Passed(np.array([0, 2, 2, 3]), np.arange(8.0).reshape(4, 2), np.arange(4.0))
    kept = passed.of(np.array([3, 2]), 4)
    assert kept.owners.tolist() == [1, 1, 0] and kept.spread.tolist() == [1.0, 2.0, 3.0]
    first, second = passed.levels()
    assert first.owners.tolist() == [0, 2, 3] and second.owners.tolist() == [2]
    assert second.objectives.tolist() == [[4.0, 5.0]]
    assert Passed(np.array([], dtype=np.int64), np.empty((0, 2)), np.empty(0)).levels() == []
