"""Random architectures."""

from __future__ import annotations

import numpy as np

from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding, Repair


def uniform_genes(encoding: IntegerEncoding, rng: np.random.Generator, count: int) -> Genes:
    """Draw [count, genes] uniformly in the genes (NAT); most stages come out at their full depth."""
    lowest = np.maximum(encoding.lower, encoding.required)
    return rng.integers(lowest, encoding.upper + 1, size=(count, len(encoding)), dtype=np.int64)


def uniform_depth_genes(
    encoding: IntegerEncoding, rng: np.random.Generator, count: int, repair: Repair = "fill"
) -> Genes:
    """Draw [count, genes] uniformly in the architecture space (NAT2).

    Each layer beyond a stage's required ones is absent with probability 1/3; with *fill* repair
    depths 2, 3, 4 then come with probabilities 1/3, 2/9 and 4/9.
    """
    layer = np.arange(len(encoding)) >= encoding.first_layer
    genes = rng.integers(
        layer.astype(np.int64), encoding.upper + 1, size=(count, len(encoding)), dtype=np.int64
    )
    absent = (rng.random(genes.shape) < 1 / 3) & layer & ~encoding.required
    genes[absent] = 0
    return encoding.repair(genes, repair)


def latin_hypercube_genes(
    encoding: IntegerEncoding, rng: np.random.Generator, count: int, repair: Repair = "fill"
) -> Genes:
    """Draw [count, genes] by an integer Latin hypercube (NAT2's evolution starts from one).

    Before repair each value of a gene comes as often as any other, give or take two.
    """
    lowest = np.maximum(encoding.lower, encoding.required)
    strata = np.stack([rng.permutation(count) for _ in range(len(encoding))], axis=1)
    unit = (strata + rng.random(strata.shape)) / count
    genes = lowest + np.floor(unit * (encoding.upper + 1 - lowest)).astype(np.int64)
    return encoding.repair(np.minimum(genes, encoding.upper), repair)


def random_architectures(
    encoding: IntegerEncoding, rng: np.random.Generator, count: int
) -> list[Architecture]:
    """Draw ``count`` distinct architectures uniformly in the architecture space.

    Fewer come back when the space has not that many.
    """
    found: dict[bytes, Genes] = {}
    for _ in range(20):
        if len(found) < count:
            for genes in uniform_depth_genes(encoding, rng, count):
                found.setdefault(genes.tobytes(), genes)
    return encoding.decode_all(np.array([*found.values()][:count], dtype=np.int64).reshape(-1, len(encoding)))
