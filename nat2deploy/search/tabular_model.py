"""What a tabular benchmark says of architectures that were not evaluated: an ensemble and its residuals.

As NAS-Bench-301 does (Zela et al., "Surrogate NAS Benchmarks", 2022): a model fitted on evaluated
architectures, and around it as much noise as it was off on held-out ones. The noise belongs to the
architecture, so that the same question has the same answer, and the landscape is as rough as the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nat2deploy.space.encoding import Genes, IntegerEncoding

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """How good predictions of held-out architectures are; ``rmse`` in accuracy, 0 to 1."""

    kendall_tau: float
    r2: float
    rmse: float
    architectures: int


class TabularModel:
    """Predicts accuracies [N, K] (K splits) of genes: boosted trees and a ridge on pairs of genes, averaged.

    Trees have plateaus and the ridge has none; a search's own surrogate is like neither, so that no
    kind of surrogate sees its own landscape. Fitted with a fixed seed in seconds.
    """

    def __init__(self, encoding: IntegerEncoding, seed: int = 0) -> None:
        self.encoding = encoding
        self.seed = seed
        self._ridge: Any = None
        self._boosted: list[list[Any]] = []

    def fit(self, genes: Genes, accuracies: Floats) -> TabularModel:
        """Fit on genes [N, G] and accuracies [N, K]."""
        features = genes.astype(np.float64)
        with threadpool_limits(1):
            self._ridge = Ridge(alpha=10.0).fit(self._pairs(genes), accuracies)
            self._boosted = [
                [self._trees(self.seed + member).fit(features, column) for member in range(2)]
                for column in accuracies.T
            ]
        return self

    def predict(self, genes: Genes) -> Floats:
        """Predicted accuracies [N, K] of genes [N, G]: the mean of the trees and the ridge."""
        features = genes.astype(np.float64)
        trees = [np.mean([tree.predict(features) for tree in column], axis=0) for column in self._boosted]
        pairs = self._ridge.predict(self._pairs(genes)).reshape(len(genes), -1)
        found: Floats = (np.stack(trees, axis=1) + pairs) / 2
        return found

    def _trees(self, seed: int) -> HistGradientBoostingRegressor:
        return HistGradientBoostingRegressor(
            max_iter=250,
            learning_rate=0.08,
            max_leaf_nodes=16,
            min_samples_leaf=8,
            max_features=0.7,
            random_state=seed,
        )

    def _pairs(self, genes: Genes) -> Floats:
        """One-hot genes and their products [N, F]: which two choices do well together."""
        hot = self.encoding.one_hot(genes)
        first, second = np.triu_indices(hot.shape[1], 1)
        return np.concatenate([hot, hot[:, first] * hot[:, second]], axis=1)


def cross_validate(
    encoding: IntegerEncoding, genes: Genes, accuracies: Floats, groups: Sequence[int], folds: int = 5
) -> tuple[list[HeldOut], Floats]:
    """Held-out quality for each column of accuracies [N, K], and residuals [M, K] of what was held out.

    Architectures of one of ``groups`` [N] are held out together; those of a negative one never are.
    """
    marks = np.asarray(groups)
    candidates, always = np.flatnonzero(marks >= 0), np.flatnonzero(marks < 0)
    predicted = np.empty((len(candidates), accuracies.shape[1]))
    for train, test in GroupKFold(folds).split(candidates, groups=marks[candidates]):
        seen = np.concatenate([always, candidates[train]])
        model = TabularModel(encoding).fit(genes[seen], accuracies[seen])
        predicted[test] = model.predict(genes[candidates[test]])
    truth = accuracies[candidates]
    residuals = truth - predicted
    quality = [
        HeldOut(
            kendall_tau=round(float(kendalltau(predicted[:, k], truth[:, k]).statistic), 4),
            r2=round(float(1 - residuals[:, k].var() / truth[:, k].var()), 4),
            rmse=round(float(np.sqrt(np.square(residuals[:, k]).mean())), 6),
            architectures=len(candidates),
        )
        for k in range(truth.shape[1])
    ]
    return quality, residuals
