"""The kinds of regressors that a surrogate can be made of (NAT2 compares them all).

Each is a scikit-learn estimator over features [N, F]. Inputs are scaled for those that measure distances or
penalise weights, and targets for those with a tolerance or step in the target's unit: errors of a few per
cent would else look all the same to them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    VotingRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel
from sklearn.linear_model import BayesianRidge, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted

from nat2deploy.errors import UserError
from nat2deploy.plugins import Registry

Floats = NDArray[np.float64]
Features = Literal["integer", "one-hot", "choices"]

PACKAGES = {"lightgbm": "lightgbm", "catboost": "catboost"}
"""Kinds that need a package of the extra ``surrogates``, and which."""


def check_installed(names: Iterable[str]) -> None:
    """Refuse kinds of surrogates whose package is not installed.

    Raises:
        UserError: names the package and how to install it.
    """
    for name in names:
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(
                f"surrogate '{name}' needs the package {PACKAGES[name]}; "
                "pip install 'nat2deploy[surrogates]', or choose another surrogate"
            )


class RbfRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Interpolation by radial basis functions with a linear tail.

    Features are projected on the directions in which the fitted rows differ: the tail has one solution there
    only, and any number of rows is enough.
    """

    def __init__(self, kernel: str = "cubic", smoothing: float = 1e-6) -> None:
        self.kernel = kernel
        self.smoothing = smoothing

    def fit(self, x: Floats, y: Floats) -> RbfRegressor:
        """Fit on features [N, F] and targets [N]."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        self.mean_, self.level_ = x.mean(axis=0), float(y.mean())
        _, values, directions = np.linalg.svd(x - self.mean_, full_matrices=False)
        self.directions_ = directions[values > 1e-9 * max(1.0, values.max(initial=0.0))].T
        self.interpolator_ = None
        if self.directions_.shape[1]:
            self.interpolator_ = RBFInterpolator(
                (x - self.mean_) @ self.directions_,
                y - self.level_,
                kernel=self.kernel,
                smoothing=self.smoothing,
                degree=1,
            )
        return self

    def predict(self, x: Floats) -> Floats:
        """Predict targets [N] of features [N, F]."""
        x = np.asarray(x, dtype=np.float64)
        if self.interpolator_ is None:
            return np.full(len(x), self.level_)
        found: Floats = self.level_ + self.interpolator_((x - self.mean_) @ self.directions_)
        return found


class NearestRegressor(KNeighborsRegressor):  # type: ignore[misc]
    """The nearest neighbours' mean; all rows where there are fewer than neighbours asked for."""

    def kneighbors(self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """Return what scikit-learn's own returns, of at most as many neighbours as rows were fitted."""
        wanted = min(n_neighbors or self.n_neighbors, self.n_samples_fit_)
        return super().kneighbors(X, wanted, return_distance)


class SampledProcess(GaussianProcessRegressor):  # type: ignore[misc]
    """A Gaussian process whose kernel is learnt from at most ``SAMPLE`` rows and then holds for all of them.

    Learning it takes dozens of decompositions, whose time grows with the cube of the rows.
    """

    SAMPLE = 128
    kernel: Any
    optimizer: Any

    def fit(self, x: Floats, y: Floats) -> SampledProcess:
        """Fit on features [N, F] and targets [N]."""
        if len(x) > self.SAMPLE and self.optimizer is not None:
            rows = np.random.default_rng(self.random_state).choice(len(x), self.SAMPLE, replace=False)
            learnt = GaussianProcessRegressor(**self.get_params(deep=False)).fit(x[rows], y[rows])
            given = self.kernel, self.optimizer
            try:
                self.kernel, self.optimizer = learnt.kernel_, None
                super().fit(x, y)
            finally:
                self.kernel, self.optimizer = given
        else:
            super().fit(x, y)
        return self


class FewRowsTrees(ExtraTreesRegressor):  # type: ignore[misc]
    """Checks features once, and starts no jobs: theirs take longer than trees need for hundreds of rows."""

    def predict(self, X: Floats) -> Floats:
        """Predict targets [N] of features [N, F].

        Raises:
            ValueError: another number of features than was fitted, or an infinite one.
        """
        check_is_fitted(self)
        rows = self._validate_X_predict(X)
        votes = [tree.tree_.predict(rows).reshape(len(rows)) for tree in self.estimators_]
        mean: Floats = np.mean(votes, axis=0)
        return mean


def _scaled(regressor: Any) -> Any:
    return make_pipeline(StandardScaler(), regressor)


def _both_scaled(regressor: Any) -> Any:
    return TransformedTargetRegressor(_scaled(regressor), transformer=StandardScaler())


def _boosting(seed: int) -> Any:
    return HistGradientBoostingRegressor(
        max_iter=150, learning_rate=0.08, max_leaf_nodes=12, min_samples_leaf=5, random_state=seed
    )


def _trees(seed: int, count: int = 100) -> Any:
    return FewRowsTrees(n_estimators=count, min_samples_leaf=2, random_state=seed)


def _process(seed: int, *, trend: bool = False) -> Any:
    kernel = ConstantKernel(1.0) * Matern(8.0, (0.5, 1e3), nu=2.5) + WhiteKernel(0.1, (1e-4, 10.0))
    if trend:
        kernel = kernel + ConstantKernel(0.1) * DotProduct(1.0)
    return _scaled(SampledProcess(kernel, normalize_y=True, random_state=seed))


def _process_trees_ridge(seed: int) -> Any:
    """The mean of three kinds that err differently: smooth between networks, in steps, and linear.

    Trees count half. They predict too high an error for networks near the front, whose like they never saw.
    """
    return VotingRegressor(
        [
            ("process", _process(seed, trend=True)),
            ("trees", _trees(seed, 50)),
            ("ridge", _bayesian_ridge(seed)),
        ],
        weights=[2, 1, 2],
    )


def _bayesian_ridge(seed: int) -> Any:
    return _scaled(BayesianRidge())


def _rbf(seed: int) -> Any:
    return _scaled(RbfRegressor())


def _rbf_ensemble(seed: int) -> Any:
    # Rows without replacement: the same row twice says nothing to an interpolation.
    bag = BaggingRegressor(
        RbfRegressor(),
        n_estimators=20,
        max_samples=0.7,
        max_features=0.7,
        bootstrap=False,
        random_state=seed,
    )
    return _scaled(bag)


def _mlp(seed: int) -> Any:
    return _both_scaled(
        MLPRegressor(
            hidden_layer_sizes=(64, 64), solver="lbfgs", alpha=1.0, max_iter=500, tol=1e-5, random_state=seed
        )
    )


def _cart_forest(seed: int) -> Any:
    """Trees that each see a random part of the features (Sun et al., 2019, E2EPP)."""
    return BaggingRegressor(
        DecisionTreeRegressor(), n_estimators=200, max_features=0.7, bootstrap=True, random_state=seed
    )


def _tree(seed: int) -> Any:
    return DecisionTreeRegressor(min_samples_leaf=3, random_state=seed)


def _svr(seed: int) -> Any:
    return _both_scaled(SVR(C=1.0, epsilon=0.1))


def _ridge(seed: int) -> Any:
    return _scaled(Ridge(alpha=10.0))


def _nearest(seed: int) -> Any:
    return _scaled(NearestRegressor(n_neighbors=5, weights="distance"))


def _lightgbm(seed: int) -> Any:
    """Huber loss, as NAT2 has it; scaled targets, for its threshold is in their unit."""
    from lightgbm import LGBMRegressor

    regressor = LGBMRegressor(
        objective="huber",
        n_estimators=300,
        learning_rate=0.05,
        num_leaves=12,
        min_child_samples=5,
        feature_fraction=0.8,
        n_jobs=1,
        random_state=seed,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )
    return TransformedTargetRegressor(regressor, transformer=StandardScaler())


def _catboost(seed: int) -> Any:
    from catboost import CatBoostRegressor

    return CatBoostRegressor(
        iterations=300,
        learning_rate=0.05,
        depth=5,
        random_seed=seed,
        thread_count=1,
        allow_writing_files=False,
        allow_const_label=True,  # on few images all networks may err equally
        verbose=False,
    )


class SurrogateKind(NamedTuple):
    """A kind of surrogate.

    ``make`` returns an unfitted scikit-learn regressor for a seed; ``features`` is what it sees of the genes
    unless a setting says otherwise.
    """

    make: Callable[[int], Any]
    features: Features = "integer"


# Integers did better than one-hots for nearly all kinds in NAT2's comparison; what is smooth or linear in its
# features does best on choices.
SURROGATES: Registry[SurrogateKind] = Registry(
    "surrogate",
    SurrogateKind,
    {
        "gradient-boosting": SurrogateKind(_boosting),
        "extra-trees": SurrogateKind(_trees),
        "gaussian-process": SurrogateKind(_process, "choices"),
        "process-trees-ridge": SurrogateKind(_process_trees_ridge, "choices"),
        "bayesian-ridge": SurrogateKind(_bayesian_ridge, "choices"),
        "rbf": SurrogateKind(_rbf),
        "rbf-ensemble": SurrogateKind(_rbf_ensemble),
        "mlp": SurrogateKind(_mlp),
        "cart-forest": SurrogateKind(_cart_forest),
        "decision-tree": SurrogateKind(_tree),
        "svr": SurrogateKind(_svr),
        "ridge": SurrogateKind(_ridge),
        "k-nn": SurrogateKind(_nearest),
        "lightgbm": SurrogateKind(_lightgbm),
        "catboost": SurrogateKind(_catboost),
    },
)
