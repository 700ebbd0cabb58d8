"""Genes: architectures as integer vectors, as NAT writes them (Lu et al., 2021, section 3.2).

A vector is [resolution index, width index, layers...], ``max_depth`` layers a stage. A layer is 0 when
absent, else 1 + kernel index + kernels × expansion index.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.search_space import SearchSpace

Genes = NDArray[np.int64]
Repair = Literal["push", "fill"]


class IntegerEncoding:
    """Architectures of a space to integer vectors and back.

    ``lower`` and ``upper`` (both inclusive, int64 [genes]) bound each gene; the layers that every
    stage must have cannot be 0.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.stages = len(space.stages)
        self.states = 1 + len(space.kernels) * len(space.expansions)
        required = np.arange(space.max_depth) < space.depths[0]
        self.lower: Genes = np.concatenate([[0, 0], np.tile(required.astype(np.int64), self.stages)])
        self.upper: Genes = np.concatenate(
            [
                [len(space.resolutions) - 1, len(space.widths) - 1],
                np.full(self.stages * space.max_depth, self.states - 1),
            ]
        ).astype(np.int64)

    def __len__(self) -> int:
        """Number of genes."""
        return len(self.lower)

    def encode(self, architecture: Architecture) -> Genes:
        """Return the int64 vector [genes] of an architecture of the space."""
        space = self.space
        genes = np.zeros(len(self), dtype=np.int64)
        genes[0] = space.resolutions.index(architecture.resolution)
        genes[1] = space.widths.index(architecture.width)
        for stage, layers in enumerate(architecture.stages):
            for position, layer in enumerate(layers):
                kernel = space.kernels.index(layer.kernel)
                expansion = space.expansions.index(layer.expansion)
                index = 2 + stage * space.max_depth + position
                genes[index] = 1 + kernel + len(space.kernels) * expansion
        return genes

    def encode_all(self, architectures: list[Architecture]) -> Genes:
        """Return the int64 matrix [architectures, genes]."""
        return np.array([self.encode(a) for a in architectures], dtype=np.int64).reshape(-1, len(self))

    def repair(self, genes: Genes, how: Repair = "fill") -> Genes:
        """Return canonical vectors [..., genes]: within bounds and without holes inside a stage.

        ``push`` moves present layers to the front (NAT); ``fill`` also clears everything after a
        stage's first 0 (NAT2), which makes depths 2, 3 and 4 likelier in fair shares.
        """
        fixed = np.clip(genes, self.lower, self.upper)
        layers = fixed[..., 2:].reshape(*fixed.shape[:-1], self.stages, self.space.max_depth)
        if how == "push":
            order = np.argsort(layers == 0, axis=-1, kind="stable")
            layers = np.take_along_axis(layers, order, axis=-1)
        else:
            layers = layers * np.cumprod(layers != 0, axis=-1)
        return np.concatenate([fixed[..., :2], layers.reshape(fixed[..., 2:].shape)], axis=-1)

    def decode(self, genes: Genes, how: Repair = "fill") -> Architecture:
        """Return the architecture of one vector [genes], repaired first."""
        space = self.space
        genes = self.repair(np.asarray(genes, dtype=np.int64), how)
        stages = []
        for codes in genes[2:].reshape(self.stages, space.max_depth):
            choices = [divmod(int(code) - 1, len(space.kernels)) for code in codes if code]
            stages.append(tuple(Layer(space.kernels[k], space.expansions[e]) for e, k in choices))
        return Architecture(space.resolutions[int(genes[0])], space.widths[int(genes[1])], tuple(stages))

    def one_hot(self, genes: Genes) -> NDArray[np.float64]:
        """Return the float64 matrix [..., sum of choices] with one column a value of a gene."""
        columns = [
            (genes[..., i, None] == np.arange(low, high + 1))
            for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True))
        ]
        return np.concatenate(columns, axis=-1).astype(np.float64)
