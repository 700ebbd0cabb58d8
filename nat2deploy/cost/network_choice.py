"""Which whole networks to measure: random, and spread evenly over the orders of latency."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding
from nat2deploy.space.lowering import NetworkPlan, plan_network
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature

_POOL = 25


@dataclass(frozen=True)
class Network:
    """An architecture with its number of classes, and its plan; ``signatures`` are all that costs."""

    architecture: Architecture
    classes: int
    plan: NetworkPlan

    @cached_property
    def signatures(self) -> tuple[BlockSignature, ...]:
        """Everything of the network that costs something."""
        return tuple(self.plan.signatures)


def choose_networks(
    space: SearchSpace,
    latency_ms: Callable[[Sequence[BlockSignature]], float],
    rng: np.random.Generator,
    count: int,
    *,
    most_classes: int,
    exclude: Collection[Architecture] = (),
) -> list[Network]:
    """Draw ``count`` distinct networks, one a stratum of the predicted latency, in random order.

    Uniform draws bunch up in the middle; here the range between the fastest and the slowest of a large random
    pool is cut into ``count`` strata of equal ratio, because errors count relative to the latency, and the
    network nearest to each one's (geometric) middle is taken. Numbers of classes are drawn log-uniformly from
    2 to ``most_classes``. None of ``exclude`` is taken, with any number of classes. Fewer networks come back
    when the space has not that many.
    """
    encoding = IntegerEncoding(space)
    pool = dict.fromkeys(random_architectures(encoding, rng, _POOL * count))
    pool.update(dict.fromkeys(encoding.decode_all(_tilted_genes(encoding, rng, _POOL * count))))
    pool.update(
        (end(resolution, width), None)
        for resolution in space.resolutions
        for width in space.widths
        for end in (space.smallest, space.largest)
    )
    networks = []
    for architecture in pool:
        if architecture in exclude:
            continue
        classes = round(2 * (most_classes / 2) ** rng.random())
        networks.append(Network(architecture, classes, plan_network(space, architecture, classes)))
    if not networks:
        return []
    predicted = np.array([latency_ms(network.signatures) for network in networks])
    if predicted.min() <= 0:
        raise UserError(
            "networks are predicted to take no time at all, so what was measured of blocks is of no use; "
            "profile again on a quiet machine"
        )
    edges = np.geomspace(predicted.min(), predicted.max(), count + 1)
    chosen: list[int] = []
    for middle in np.sqrt(edges[:-1] * edges[1:]):
        nearest = np.argsort(np.abs(predicted - middle), kind="stable")
        free = next((int(index) for index in nearest if index not in chosen), None)
        if free is not None:
            chosen.append(free)
    return [networks[index] for index in rng.permutation(chosen)]


def _tilted_genes(encoding: IntegerEncoding, rng: np.random.Generator, count: int) -> Genes:
    """Draw [count, genes], each row with its own leaning to small or to large choices: they fill the ends."""
    leaning = 4 * rng.random((count, 1))
    share = rng.beta(1 + leaning, 5 - leaning, size=(count, len(encoding)))
    genes: Genes = encoding.lower + (share * (encoding.upper - encoding.lower + 1)).astype(np.int64)
    return genes
