"""Per-gene distribution of an archive's best, from which adaptation samples (NAT, section 3.4)."""

from __future__ import annotations

import numpy as np

from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding


class GeneDistribution:
    """A smoothed categorical for each gene: counts of genes [N, G] plus ``smoothing`` a value.

    The authors fit continuous distributions to the integers; counts say the same without a choice of
    family.
    """

    def __init__(self, encoding: IntegerEncoding, genes: Genes, smoothing: float = 0.5) -> None:
        self.encoding = encoding
        self.probabilities = []
        said = encoding.running(genes)
        # Behind a stage's first absent layer nothing is said either: all but the first 0 follow from it.
        follows = np.ones_like(encoding.layers(genes), dtype=np.bool_)
        follows[..., 1:] = encoding.layers(genes)[..., :-1] != 0
        said[:, encoding.first_layer :] &= follows.reshape(len(genes), -1)
        self.lowest = np.maximum(encoding.lower, encoding.required)
        for column, (low, high) in enumerate(zip(self.lowest, encoding.upper, strict=True)):
            values = genes[said[:, column], column]
            counts = np.bincount(values - low, minlength=int(high - low) + 1) + smoothing
            self.probabilities.append(counts / counts.sum())

    def sample(self, rng: np.random.Generator, count: int = 1) -> list[Architecture]:
        """Draw ``count`` architectures that share one resolution (one batch of images serves all)."""
        columns = [
            low + rng.choice(len(p), size=count, p=p)
            for low, p in zip(self.lowest, self.probabilities, strict=True)
        ]
        genes = np.stack(columns, axis=1)
        genes[:, 0] = genes[0, 0]
        return [self.encoding.decode(row) for row in genes]
