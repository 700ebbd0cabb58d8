"""Per-gene distribution of an archive's best, from which adaptation samples (NAT, section 3.4)."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nat2deploy.plugins import Registry
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding, Repair

Floats = NDArray[np.float64]


class PerGene(ABC):
    """Independent genes, each with ``probabilities`` of its values from ``lowest`` on, from genes [N, G]."""

    def __init__(self, encoding: IntegerEncoding, genes: Genes) -> None:
        self.encoding = encoding
        self.probabilities: list[Floats] = []
        said = encoding.running(genes)
        # Behind a stage's first absent layer nothing is said either: all but the first 0 follow from it.
        follows = np.ones_like(encoding.layers(genes), dtype=np.bool_)
        follows[..., 1:] = encoding.layers(genes)[..., :-1] != 0
        said[:, encoding.first_layer :] &= follows.reshape(len(genes), -1)
        self.lowest = np.maximum(encoding.lower, encoding.required)
        for column, (low, high) in enumerate(zip(self.lowest, encoding.upper, strict=True)):
            values = genes[said[:, column], column]
            self.probabilities.append(self._fit(np.bincount(values - low, minlength=int(high - low) + 1)))

    @abstractmethod
    def _fit(self, counts: NDArray[np.int64]) -> Floats:
        """Return the probability of each value [V] of a gene that was seen ``counts`` [V] times."""

    def sample(self, rng: np.random.Generator, count: int = 1, repair: Repair = "fill") -> list[Architecture]:
        """Draw ``count`` architectures that share one resolution (one batch of images serves all)."""
        columns = [
            low + rng.choice(len(p), size=count, p=p)
            for low, p in zip(self.lowest, self.probabilities, strict=True)
        ]
        genes = np.stack(columns, axis=1)
        genes[:, 0] = genes[0, 0]
        return self.encoding.decode_all(genes, repair)


class GeneDistribution(PerGene):
    """A smoothed categorical for each gene: counts of genes [N, G] plus ``smoothing`` a value.

    The authors fit continuous distributions to the integers; counts say the same without a choice of
    family.
    """

    def __init__(self, encoding: IntegerEncoding, genes: Genes, smoothing: float = 0.5) -> None:
        self.smoothing = smoothing
        super().__init__(encoding, genes)

    def _fit(self, counts: NDArray[np.int64]) -> Floats:
        smoothed = counts + self.smoothing
        return np.asarray(smoothed / smoothed.sum(), dtype=np.float64)


class FittedDistribution(PerGene):
    """The continuous distribution of scipy that fits each gene with the least squared error (NAT).

    Each family is fitted by maximum likelihood. Its squared error is that of the probabilities which its
    draws have once they are rounded and clipped to the gene's values, against the shares among genes
    [N, G]. A gene with one value keeps it. In the authors' code a wrong comparison lets one fixed family of
    the list win, however badly it fits; here the least error wins, the first of equals. All families together
    take seconds a gene.
    """

    def _fit(self, counts: NDArray[np.int64]) -> Floats:
        return np.array(_least_squares(tuple(int(count) for count in counts)))


SLOW = frozenset(
    ("studentized_range", "recipinvgauss", "nct", "levy_stable", "vonmises_line", "ncx2", "kappa4", "kstwo")
)
"""Families left out: each takes as long to fit as ten others, to minutes."""


def families() -> list[str]:
    """The names of scipy's continuous distributions that are fitted, in order."""
    from scipy import stats

    names = (n for n in dir(stats) if isinstance(getattr(stats, n), stats.rv_continuous))
    return sorted(set(names) - SLOW)


@lru_cache(maxsize=4096)  # genes with the same counts are common, and a fit takes seconds
def _least_squares(counts: tuple[int, ...]) -> tuple[float, ...]:
    total = sum(counts)
    if total == 0:
        return (1 / len(counts),) * len(counts)
    shares = np.array(counts) / total
    if shares.max() == 1.0:
        return tuple(shares.tolist())
    values = np.repeat(np.arange(len(counts), dtype=np.float64), counts)
    found, least = shares, np.inf
    for name in families():
        mass = _rounded_mass(name, values, len(counts))
        error = np.inf if mass is None else float(np.square(mass - shares).sum())
        if mass is not None and error < least:
            found, least = mass, error
    return tuple(found.tolist())


def _rounded_mass(name: str, values: Floats, size: int) -> Floats | None:
    """Probabilities [size] of a fitted family's rounded, clipped draws; None where it cannot be fitted."""
    from scipy import stats

    family = getattr(stats, name)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            below = family.cdf(np.arange(size - 1) + 0.5, *family.fit(values))
    except (ArithmeticError, ValueError, RuntimeError):
        return None
    mass = np.diff(np.concatenate([[0.0], np.asarray(below, dtype=np.float64), [1.0]]))
    return mass if np.isfinite(mass).all() and (mass >= 0).all() and np.isclose(mass.sum(), 1.0) else None


DISTRIBUTIONS: Registry[type[PerGene]] = Registry(
    "distribution",
    PerGene,
    {
        "categorical": GeneDistribution,
        "continuous": FittedDistribution,
    },
)
