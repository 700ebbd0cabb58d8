"""The regressors behind the surrogates, where they are our own."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from nat2deploy.errors import UserError
from nat2deploy.search.regressors import (
    PACKAGES,
    SURROGATES,
    FewRowsTrees,
    NearestRegressor,
    RbfRegressor,
    SampledProcess,
    check_installed,
)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 12))
def test_rbf_goes_through_what_it_was_shown(seed, rows, width):
    rng = np.random.default_rng(seed)
    x = np.unique(rng.integers(0, 4, (rows, width)), axis=0).astype(float)
    y = rng.random(len(x))
    np.testing.assert_allclose(RbfRegressor().fit(x, y).predict(x), y, atol=1e-3)


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_rbf_knows_a_plane_even_where_columns_say_the_same(seed, width):
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=width)
    x, new = rng.random((30, width)), rng.random((10, width))
    fitted = RbfRegressor().fit(np.hstack([x, 1 - x, np.ones((30, 1))]), x @ plane)
    np.testing.assert_allclose(
        fitted.predict(np.hstack([new, 1 - new, np.ones((10, 1))])), new @ plane, atol=1e-6
    )


def test_rbf_of_one_and_the_same_row_is_their_mean():
    fitted = RbfRegressor().fit(np.ones((4, 3)), np.array([1.0, 2.0, 3.0, 6.0]))
    assert fitted.predict(np.zeros((2, 3))).tolist() == [3.0, 3.0]


def test_rbf_bears_the_same_row_twice():
    x = np.array([[0.0], [0.0], [1.0], [2.0]])
    found = RbfRegressor().fit(x, np.array([0.0, 2.0, 5.0, 5.0])).predict(x[:1])
    assert found[0] == pytest.approx(1.0, abs=1e-3)


def test_a_process_learns_its_kernel_from_some_rows_and_predicts_from_all(monkeypatch):
    rng = np.random.default_rng(0)
    x, new = rng.random((80, 3)), rng.random((40, 3))
    kernel = RBF(0.5, (0.2, 1.0)) + WhiteKernel(1e-4, (1e-6, 1e-2))

    def fit(sample):
        monkeypatch.setattr(SampledProcess, "SAMPLE", sample)
        return SampledProcess(kernel, normalize_y=True, random_state=3).fit(x, np.sin(4 * x).sum(axis=1))

    whole, some = fit(80), fit(30)
    assert len(some.X_train_) == 80 and some.kernel_ != whole.kernel_
    truth = np.sin(4 * new).sum(axis=1)
    assert np.abs(some.predict(new) - truth).mean() < 0.05
    assert (some.kernel, some.optimizer) == (kernel, "fmin_l_bfgs_b")  # clones learn anew
    again = clone(some).fit(x, np.sin(4 * x).sum(axis=1))
    np.testing.assert_array_equal(again.predict(new), some.predict(new))


@pytest.mark.parametrize(("rows", "count"), [(2, 2), (3, 3), (9, 5)])
def test_as_many_neighbours_as_there_are(rows, count):
    x, y = np.arange(rows, dtype=float)[:, None], np.arange(rows) ** 2.0
    found = NearestRegressor(n_neighbors=5).fit(x, y).predict(np.array([[-1.0]]))
    assert found[0] == pytest.approx(y[:count].mean())


@pytest.mark.parametrize("name", SURROGATES)
def test_every_kind_fits_networks_that_err_equally(name):
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    x = np.random.default_rng(0).integers(0, 3, (4, 12)).astype(float)
    found = SURROGATES[name].make(0).fit(x, np.full(4, 0.1)).predict(x)
    np.testing.assert_allclose(found, 0.1, atol=0.01)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_kind_whose_package_is_missing_is_named(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda package: None if package == PACKAGES[name] else find(package)
    )
    check_installed(kind for kind in SURROGATES if kind != name)
    with pytest.raises(UserError, match=rf"'{name}' needs the package .*nat2deploy\[surrogates\]"):
        check_installed(["ridge", name])


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 5))
def test_trees_predict_what_theirs_do(seed, rows, width):
    rng = np.random.default_rng(seed)
    x, y, new = rng.random((rows, width)), rng.random(rows), rng.random((7, width))
    ours, theirs = (
        kind(n_estimators=5, min_samples_leaf=2, random_state=seed).fit(x, y)
        for kind in (FewRowsTrees, ExtraTreesRegressor)
    )
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-12)
    for wrong in (new[:, :-1], np.full((1, width), np.inf)):
        with pytest.raises(ValueError, match=r"feature|infinity"):
            ours.predict(wrong)
