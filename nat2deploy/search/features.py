"""What surrogates see of architectures: genes, or the choices behind them, and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nat2deploy.search.regressors import Features, Floats
from nat2deploy.space.encoding import Genes, IntegerEncoding

CostsOf = Callable[[Genes], Mapping[str, Floats]]
"""Costs of genes [N, G] by metric, each [N], all positive; ``macs`` among them."""


class SurrogateInput:
    """Maps canonical genes [N, G] to the features [N, F] of a surrogate.

    ``integer`` are the genes as they are, ``one-hot`` has a column for each value of each gene. ``choices``
    takes layers apart into what they are chosen by: presence, kernel, expansion and each branch, and adds the
    depth of each stage; what a kernel is worth is learnt from all layers that have it, whatever else they
    are. The squares of kernel and expansion say what the middle of three is worth beside the ends: a larger
    one adds less than the one before. With ``costs_of`` the logarithm of every cost follows: they are known
    before anything is judged, and say most of what size is worth. Of ``choices`` that of MACs comes once
    more, times the resolution: what larger images are worth depends on the network's size.
    """

    def __init__(
        self, features: Features, encoding: IntegerEncoding, costs_of: CostsOf | None = None
    ) -> None:
        self.features: Features = features
        self.encoding = encoding
        self.costs_of = costs_of
        self._layers = _layer_choices(encoding) if features == "choices" else None
        self._resolutions: Floats | None = None
        resolutions = encoding.space.resolutions
        if features == "choices" and costs_of is not None and len(resolutions) > 1:
            self._resolutions = np.array([*_around_zero(resolutions).values()])
            ends = encoding.repair(np.stack([encoding.lower, encoding.upper]))
            self._middle_log_macs = float(np.log(costs_of(ends)["macs"]).mean())

    def __call__(self, genes: Genes) -> Floats:
        """Return the features [N, F]."""
        columns = [self._of_genes(genes)]
        if self.costs_of is not None:
            costs = self.costs_of(genes)
            columns.append(np.log(np.stack([costs[metric] for metric in sorted(costs)], axis=1)))
            if self._resolutions is not None:
                around = np.log(costs["macs"]) - self._middle_log_macs
                columns.append((self._resolutions[genes[:, 0]] * around)[:, None])
        return np.concatenate(columns, axis=1)

    def _of_genes(self, genes: Genes) -> Floats:
        if self.features == "one-hot":
            return self.encoding.one_hot(genes)
        if self._layers is None:
            return genes.astype(np.float64)
        head = genes[:, : self.encoding.first_layer].astype(np.float64)
        layers = self.encoding.layers(genes)
        depths = (layers > 0).sum(axis=-1).astype(np.float64)
        return np.concatenate([head, self._layers[layers].reshape(len(genes), -1), depths], axis=1)


def _layer_choices(encoding: IntegerEncoding) -> Floats:
    """What each gene of a layer stands for [states, choices]; an absent layer is all 0."""
    space = encoding.space
    kernels, expansions = _around_zero(space.kernels), _around_zero(space.expansions)
    bits = max(state.bit_length() for state in space.branch_states)
    table = np.zeros((encoding.states, 5 + bits))
    for code in range(1, encoding.states):
        layer = encoding.layer(code)
        table[code, 0] = 1.0
        if layer.kernel:
            table[code, 1:3] = kernels[layer.kernel], expansions[layer.expansion]
            table[code, 3:5] = np.square(table[code, 1:3])
        table[code, 5:] = [layer.branches >> bit & 1 for bit in range(bits)]
    # A branch that every layer has says no more than the layer's presence, nor do squares where only the ends
    # are chosen from; what none has says nothing.
    table = table[:, (table != 0).any(axis=0)]
    _, distinct = np.unique(np.round(table, 9), axis=1, return_index=True)  # (1.7 - 1.4) / 0.3 is not quite 1
    found: Floats = table[:, distinct]
    return found


def _around_zero(values: tuple[int, ...] | tuple[float, ...]) -> dict[float, float]:
    """Each value, from -1 for the smallest to 1 for the largest."""
    middle, half = (max(values) + min(values)) / 2, (max(values) - min(values)) / 2
    return {value: (value - middle) / (half or 1.0) for value in values}
