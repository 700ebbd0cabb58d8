"""The hypervolume against counting cells of a grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nat2deploy.search.hypervolume import HypervolumeMeter


def counted(points, reference) -> float:
    """Share of the box below ``reference`` that is dominated, cell by cell between all coordinates."""
    axes = [
        np.unique([0.0, reference[i], *np.minimum(points[:, i], reference[i])]) for i in range(len(reference))
    ]
    total = 0.0
    for cell in itertools.product(*(range(len(axis) - 1) for axis in axes)):
        low = np.array([axis[i] for axis, i in zip(axes, cell, strict=True)])
        high = np.array([axis[i + 1] for axis, i in zip(axes, cell, strict=True)])
        if (points <= low).all(axis=1).any():
            total += float(np.prod(high - low))
    return total / float(np.prod(reference))


rows = st.integers(2, 3).flatmap(
    lambda width: st.tuples(
        arrays.arrays(np.float64, (4, width), elements=st.integers(1, 8).map(float)),
        arrays.arrays(
            np.float64, st.tuples(st.integers(0, 6), st.just(width)), elements=st.integers(0, 9).map(float)
        ),
    )
)


@given(rows)
def test_it_is_the_counted_share_of_the_box(both):
    first, points = both
    assert HypervolumeMeter(first)(points) == pytest.approx(counted(points, 1.01 * first.max(axis=0)))


def test_by_hand():
    meter = HypervolumeMeter(np.array([[0.5, 100.0], [1.0, 20.0]]))
    np.testing.assert_allclose(meter.reference, [1.01, 101.0])
    one = (1 - 0.5 / 1.01) * (1 - 50 / 101)
    assert meter(np.array([[0.5, 50.0]])) == pytest.approx(one)
    both = one + (1 - 0.8 / 1.01) * (30 / 101)
    assert meter(np.array([[0.5, 50.0], [0.8, 20.0]])) == pytest.approx(both)


def test_nothing_covers_nothing_and_the_origin_covers_all():
    meter = HypervolumeMeter(np.array([[0.5, 100.0], [1.0, 20.0]]))
    assert meter(np.empty((0, 2))) == 0.0
    assert meter(np.array([[2.0, 10.0]])) == 0.0
    assert meter(np.zeros((1, 2))) == pytest.approx(1.0)


def test_it_does_not_depend_on_units():
    rng = np.random.default_rng(0)
    first, points, scale = rng.random((9, 3)) + 0.1, rng.random((9, 3)), np.array([1.0, 1e6, 1e-3])
    assert HypervolumeMeter(first)(points) == pytest.approx(HypervolumeMeter(first * scale)(points * scale))


def test_an_objective_that_was_zero_in_the_first_archive_is_no_division_by_zero():
    meter = HypervolumeMeter(np.array([[0.0, 10.0], [0.0, 5.0]]))
    assert 0.0 < meter(np.array([[0.0, 5.0]])) <= 1.0
