"""Surrogates: the error of architectures that were not evaluated, from those that were."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nat2deploy.search.features import CostsOf, SurrogateInput
from nat2deploy.search.regressors import SURROGATES, Features, Floats, check_installed
from nat2deploy.space.encoding import Genes, IntegerEncoding

FLOOR = 1e-3
"""Added to errors before their logarithm is taken: some networks make none."""
ENOUGH = 500
"""Held-out rows that say how good a surrogate is; more would take seconds and say much the same."""
_SEEDS = 2**31
"""How many seeds every kind takes: scikit-learn's are of 32 bits, LightGBM's signed."""


@dataclass(frozen=True)
class Surrogate:
    """An ensemble of one kind of regressor: each fold's model votes, the mean counts (NAT).

    ``tau`` is Kendall's correlation of held-out predictions with the errors; 0 where it is undefined.
    ``deviation`` is how far held-out predictions are off, as a standard deviation (of the median absolute
    one, so that a few odd networks do not count): in error, or where members predict its logarithm
    (``logarithmic``) as a share of it.
    """

    name: str
    tau: float
    deviation: float
    members: tuple[Any, ...]
    inputs: SurrogateInput
    logarithmic: bool = False

    @property
    def features(self) -> Features:
        """What it sees of the genes."""
        return self.inputs.features

    def predict(self, genes: Genes) -> Floats:
        """Predicted errors [N] of canonical genes [N, G]."""
        mean: Floats = self.votes(genes).mean(axis=0)
        return mean

    def votes(self, genes: Genes) -> Floats:
        """Each member's predicted errors [members, N]; they disagree where the surrogate knows little."""
        table = self.inputs(genes)
        with threadpool_limits(1), _quiet():
            votes = np.stack([np.asarray(member.predict(table), dtype=np.float64) for member in self.members])
        return np.exp(votes) - FLOOR if self.logarithmic else votes

    def spread(self, votes: Floats) -> Floats:
        """Standard deviations [N] of predictions from votes [members, N]: disagreement, and ``deviation``."""
        off = self.deviation * (votes.mean(axis=0) + FLOOR) if self.logarithmic else self.deviation
        found: Floats = np.hypot(votes.std(axis=0), off)
        return found


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
    costs_of: CostsOf | None = None,
    logarithmic: bool = False,
) -> Surrogate:
    """Fit one kind on genes [N, G] and errors [N], cross-validated over ``folds`` as it is fitted.

    The folds' members vote together (NAT), or with ``ensemble`` off one more member, fitted on everything,
    votes alone; then no more folds are tried once ``ENOUGH`` rows were held out. ``features`` are the kind's
    own when not given; with ``costs_of`` costs are among them. With ``logarithmic`` members learn the
    logarithm of the error: a tenth less counts the same for small and large networks.

    Where there is one row, or all rows look the same, the mean is predicted. ``seed`` may be of any size.

    Raises:
        UserError: the kind's package is not installed.
    """
    check_installed([name])
    make, own = SURROGATES[name]
    inputs = SurrogateInput(features or own, encoding, costs_of)
    table = inputs(genes)
    targets = np.log(errors + FLOOR) if logarithmic else errors
    held_out = np.full(len(targets), np.nan)
    members = []
    seed %= _SEEDS
    template = make(seed)
    # Tables this small are many times slower on several threads, most of all on a busy machine.
    with _quiet(), threadpool_limits(1):
        for train, test in _splits(len(targets), folds, seed):
            member = _fitted(template, table[train], targets[train])
            held_out[test] = member.predict(table[test])
            members.append(member)
            if not ensemble and np.isfinite(held_out).sum() >= ENOUGH:
                break
        if not ensemble:
            members = [_fitted(template, table, targets)]
    seen = np.isfinite(held_out)
    tau = float(kendalltau(held_out[seen], targets[seen]).statistic) if len(targets) > 1 else 0.0
    deviation = float(1.4826 * np.median(np.abs(held_out[seen] - targets[seen])))
    return Surrogate(name, tau if np.isfinite(tau) else 0.0, deviation, tuple(members), inputs, logarithmic)


def _splits(rows: int, folds: int, seed: int) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit on and rows held out, of each fold; a single row is both."""
    if rows < 2:
        return [(np.arange(rows), np.arange(rows))]
    splits: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]] = KFold(
        min(folds, rows), shuffle=True, random_state=seed
    ).split(np.empty(rows))
    return splits


def _fitted(template: Any, table: Floats, targets: Floats) -> Any:
    """A regressor like ``template`` fitted on features [N, F], or the mean where these say nothing."""
    # Some kinds refuse a single row or constant features, each in words of its own.
    told_apart = len(table) > 1 and bool((table != table[0]).any())
    return (clone(template) if told_apart else DummyRegressor()).fit(table, targets)


def best_surrogate(
    names: Sequence[str], genes: Genes, errors: Floats, encoding: IntegerEncoding, **given: Any
) -> Surrogate:
    """Fit each kind and return the one with the highest cross-validated Kendall tau; ties to the first.

    ``given`` are the named arguments of ``fit_surrogate``.

    Raises:
        UserError: a kind's package is not installed.
    """
    fitted = [fit_surrogate(name, genes, errors, encoding, **given) for name in names]
    return max(fitted, key=lambda surrogate: surrogate.tau)
