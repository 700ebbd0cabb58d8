"""Surrogates: the error of architectures that were not evaluated, from those that were."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nat2deploy.search.regressors import SURROGATES, Features, Floats, check_installed
from nat2deploy.space.encoding import Genes, IntegerEncoding


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
        """Each member's predicted errors [members, N]; they disagree where the surrogate knows little."""
        table = _features(genes, self.features, self.encoding)
        with threadpool_limits(1), _quiet():
            return np.stack([np.asarray(member.predict(table), dtype=np.float64) for member in self.members])


def _features(genes: Genes, features: Features, encoding: IntegerEncoding) -> Floats:
    return encoding.one_hot(genes) if features == "one-hot" else genes.astype(np.float64)


class _quiet(warnings.catch_warnings):  # reads as the function that it stands for
    """Hides what fits on few rows warn of (no convergence, small bags), and LightGBM's column names."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Using the fractional value max_samples")
        warnings.filterwarnings("ignore", message="X does not have valid feature names")


def fit_surrogate(
    name: str,
    genes: Genes,
    errors: Floats,
    encoding: IntegerEncoding,
    *,
    seed: int,
    folds: int = 10,
    features: Features | None = None,
    ensemble: bool = True,
) -> Surrogate:
    """Fit one kind on genes [N, G] and errors [N], cross-validated over ``folds`` as it is fitted.

    The folds' members vote together (NAT), or with ``ensemble`` off one more member, fitted on everything,
    votes alone. ``features`` are the kind's own when not given.

    Raises:
        UserError: the kind's package is not installed.
    """
    check_installed([name])
    make, own = SURROGATES[name]
    features = features or own
    table = _features(genes, features, encoding)
    held_out = np.empty(len(errors))
    members = []
    splitter = KFold(min(folds, len(errors)), shuffle=True, random_state=seed)
    template = make(seed)
    # Tables this small are many times slower on several threads, most of all on a busy machine.
    with _quiet(), threadpool_limits(1):
        for train, test in splitter.split(table):
            member = clone(template).fit(table[train], errors[train])
            held_out[test] = member.predict(table[test])
            members.append(member)
        if not ensemble:
            members = [clone(template).fit(table, errors)]
    tau = float(kendalltau(held_out, errors).statistic)
    return Surrogate(name, tau if np.isfinite(tau) else 0.0, tuple(members), features, encoding)


def best_surrogate(
    names: Sequence[str],
    genes: Genes,
    errors: Floats,
    encoding: IntegerEncoding,
    *,
    seed: int,
    folds: int = 10,
    features: Features | None = None,
    ensemble: bool = True,
) -> Surrogate:
    """Fit each kind and return the one with the highest cross-validated Kendall tau; ties to the first.

    Raises:
        UserError: a kind's package is not installed.
    """
    fitted = [
        fit_surrogate(
            name, genes, errors, encoding, seed=seed, folds=folds, features=features, ensemble=ensemble
        )
        for name in names
    ]
    return max(fitted, key=lambda surrogate: surrogate.tau)
