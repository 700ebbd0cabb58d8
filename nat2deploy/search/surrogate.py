"""Surrogates: the error of architectures that were not evaluated, from those that were."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nat2deploy.space.encoding import Genes, IntegerEncoding

Floats = NDArray[np.float64]
Features = Literal["integer", "one-hot"]


def _boosting(seed: int) -> Any:
    return HistGradientBoostingRegressor(
        max_iter=150, learning_rate=0.08, max_leaf_nodes=12, min_samples_leaf=5, random_state=seed
    )


def _trees(seed: int) -> Any:
    return ExtraTreesRegressor(n_estimators=100, min_samples_leaf=2, random_state=seed)


def _process(seed: int) -> Any:
    kernel = ConstantKernel(1.0) * RBF(8.0, (0.5, 1e3)) + WhiteKernel(0.1, (1e-4, 10.0))
    regressor = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    return make_pipeline(StandardScaler(), regressor)


def _ridge(seed: int) -> Any:
    return make_pipeline(StandardScaler(), BayesianRidge())


# Name -> (regressor for a seed, what it sees). Trees split integers; the rest need scaled one-hots.
SURROGATES: dict[str, tuple[Callable[[int], Any], Features]] = {
    "gradient-boosting": (_boosting, "integer"),
    "extra-trees": (_trees, "integer"),
    "gaussian-process": (_process, "one-hot"),
    "bayesian-ridge": (_ridge, "one-hot"),
}


@dataclass(frozen=True)
class Surrogate:
    """An ensemble of one kind of regressor: each fold's model votes, the mean counts (NAT).

    ``tau`` is Kendall's correlation of held-out predictions with the errors; 0 where it is undefined.
    """

    name: str
    tau: float
    members: tuple[Any, ...]
    features: Features
    encoding: IntegerEncoding

    def predict(self, genes: Genes) -> Floats:
        """Predicted errors [N] of canonical genes [N, G]."""
        mean: Floats = self.votes(genes).mean(axis=0)
        return mean

    def votes(self, genes: Genes) -> Floats:
        """Each member's predicted errors [members, N]."""
        table = _features(genes, self.features, self.encoding)
        with threadpool_limits(1):
            return np.stack([np.asarray(member.predict(table), dtype=np.float64) for member in self.members])


def _features(genes: Genes, features: Features, encoding: IntegerEncoding) -> Floats:
    return encoding.one_hot(genes) if features == "one-hot" else genes.astype(np.float64)


def fit_surrogate(
    name: str, genes: Genes, errors: Floats, encoding: IntegerEncoding, *, seed: int, folds: int = 10
) -> Surrogate:
    """Fit one kind on genes [N, G] and errors [N] with ``folds`` members, cross-validated as it is fitted."""
    make, features = SURROGATES[name]
    table = _features(genes, features, encoding)
    held_out = np.empty(len(errors))
    members = []
    splitter = KFold(min(folds, len(errors)), shuffle=True, random_state=seed)
    template = make(seed)
    # Tables this small are many times slower on several threads, most of all on a busy machine.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, test in splitter.split(table):
            member = clone(template).fit(table[train], errors[train])
            held_out[test] = member.predict(table[test])
            members.append(member)
    tau = float(kendalltau(held_out, errors).statistic)
    return Surrogate(name, tau if np.isfinite(tau) else 0.0, tuple(members), features, encoding)


def best_surrogate(
    names: Sequence[str], genes: Genes, errors: Floats, encoding: IntegerEncoding, *, seed: int
) -> Surrogate:
    """Fit each kind and return the one with the highest cross-validated Kendall tau; ties to the first."""
    fitted = [fit_surrogate(name, genes, errors, encoding, seed=seed) for name in names]
    return max(fitted, key=lambda surrogate: surrogate.tau)
