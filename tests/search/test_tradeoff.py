"""Knees of a front."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.mcdm.high_tradeoff import HighTradeoffPoints

from nat2deploy.search.survival import non_dominated
from nat2deploy.search.tradeoff import EPSILON, high_tradeoff, tradeoffs


def front(seed, width, rows=60):
    objectives = np.random.default_rng(seed).random((rows, width))
    return objectives[non_dominated(objectives)]


def test_the_radius_is_nat2s():
    assert EPSILON == 0.125


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_pymoos_outliers_are_the_highest_trade_offs(seed, width):
    objectives = front(seed, width)
    if len(objectives) < 2 * width + 1:
        return
    scaled = (objectives - objectives.min(axis=0)) / np.ptp(objectives, axis=0)
    theirs = HighTradeoffPoints(epsilon=EPSILON).do(scaled)
    if theirs is not None:
        assert high_tradeoff(objectives, len(theirs)).tolist() == sorted(theirs.tolist())


def test_a_knee_is_found():
    x = np.linspace(0, 1, 21)
    bent = np.stack([x, np.where(x < 0.3, 1 - 3 * x, 0.1 - (x - 0.3) / 7)], axis=1)
    assert high_tradeoff(bent, 1).tolist() == [6]
    assert high_tradeoff(bent * [1e-3, 1e6], 1).tolist() == [6]  # units do not matter


@given(st.integers(0, 10_000), st.integers(2, 3), st.integers(0, 6))
def test_as_many_as_asked_ascending_and_no_higher_one_left(seed, width, count):
    objectives = front(seed, width)
    chosen = high_tradeoff(objectives, count)
    assert len(chosen) == (min(count, len(objectives)) if len(objectives) > 1 else 0)
    assert (np.diff(chosen) > 0).all()
    found = tradeoffs(objectives) if len(objectives) > 1 else np.zeros(1)
    left = np.setdiff1d(np.arange(len(objectives)), chosen)
    if len(chosen) and len(left):
        assert found[chosen].min() >= found[left].max()


@pytest.mark.parametrize("objectives", [np.empty((0, 2)), np.ones((1, 2)), np.ones((3, 1)), np.ones((3, 2))])
def test_where_there_is_nothing_to_trade_none_is_named(objectives):
    assert high_tradeoff(objectives, 4).tolist() == []
