"""Genes: architectures as integer vectors, as NAT writes them (Lu et al., 2021, section 3.2).

A vector is [resolution index, width index, exits, precision, layers...], ``max_depth`` layers a stage; the
gene of the exits is there only where the space has several states of them, that of the precision only where
there are several to choose from. A layer is 0 when absent, else 1 + kernel index + kernels × expansion index
+ kernels × expansions × branch index (NAT2).
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nat2deploy.precision import Precision
from nat2deploy.space.architecture import MAIN, Architecture, Layer
from nat2deploy.space.search_space import SearchSpace

Genes = NDArray[np.int64]
Repair = Literal["push", "fill"]


class IntegerEncoding:
    """Architectures of a space to integer vectors and back.

    ``lower`` and ``upper`` (both inclusive, int64 [genes]) bound each gene. ``required`` (bool [genes])
    marks the layers that a stage must have wherever it runs; they can be 0 only behind the last exit.

    With ``precisions`` an architecture chooses one of them, too; one alone is no choice.
    """

    def __init__(self, space: SearchSpace, precisions: tuple[Precision, ...] = ()) -> None:
        self.space = space
        self.precisions = precisions if len(precisions) > 1 else ()
        self.stages = len(space.stages)
        self.residuals = len(space.kernels) * len(space.expansions)
        self.states = 1 + self.residuals * len(space.branch_states)
        self.has_exit_gene = len(space.exit_states) > 1
        self.precision_gene = 2 + self.has_exit_gene
        """Its place, where there are ``precisions``."""
        self.first_layer = self.precision_gene + bool(self.precisions)
        self._last_stage = np.array([exits[-1] for exits in space.exit_states])
        needed = np.tile(np.arange(space.max_depth) < space.depths[0], self.stages)
        always = np.repeat(np.arange(self.stages) < self._last_stage.min(), space.max_depth)
        head = [len(space.resolutions) - 1, len(space.widths) - 1]
        if self.has_exit_gene:
            head.append(len(space.exit_states) - 1)
        if self.precisions:
            head.append(len(self.precisions) - 1)
        nothing = np.zeros(self.first_layer, dtype=np.int64)
        self.required: NDArray[np.bool_] = np.concatenate([nothing > 0, needed])
        self.lower: Genes = np.concatenate([nothing, (needed & always).astype(np.int64)])
        self.upper: Genes = np.concatenate(
            [np.array(head, dtype=np.int64), np.full(self.stages * space.max_depth, self.states - 1)]
        )

    def __len__(self) -> int:
        """Number of genes."""
        return len(self.lower)

    def layers(self, genes: Genes) -> Genes:
        """Return the layers' genes of vectors [..., genes] as [..., stages, max_depth], a view."""
        return genes[..., self.first_layer :].reshape(*genes.shape[:-1], self.stages, self.space.max_depth)

    def exit_index(self, genes: Genes) -> Genes:
        """Return the index of the exits' state of vectors [..., genes] as [...]."""
        return genes[..., 2] if self.has_exit_gene else np.zeros(genes.shape[:-1], dtype=np.int64)

    def running(self, genes: Genes) -> NDArray[np.bool_]:
        """Return which genes [..., genes] say something: all but those behind the last exit."""
        stages = np.arange(self.stages) < self._last_stage[self.exit_index(genes)][..., None]
        head = np.ones((*genes.shape[:-1], self.first_layer), dtype=np.bool_)
        return np.concatenate([head, np.repeat(stages, self.space.max_depth, axis=-1)], axis=-1)

    def code(self, layer: Layer) -> int:
        """Return the gene of a layer that is present."""
        space = self.space
        branch = space.branch_states.index(layer.branches)
        if not layer.branches & MAIN:
            return 1 + self.residuals * branch
        kernel, expansion = space.kernels.index(layer.kernel), space.expansions.index(layer.expansion)
        return 1 + kernel + len(space.kernels) * expansion + self.residuals * branch

    def layer(self, code: int) -> Layer:
        """Return the layer of a gene that is not 0."""
        branch, residual = divmod(code - 1, self.residuals)
        expansion, kernel = divmod(residual, len(self.space.kernels))
        branches = self.space.branch_states[branch]
        if not branches & MAIN:
            return Layer(0, 0.0, branches)
        return Layer(self.space.kernels[kernel], self.space.expansions[expansion], branches)

    def encode(self, architecture: Architecture) -> Genes:
        """Return the int64 vector [genes] of an architecture of the space.

        Raises:
            ValueError: a choice that the space does not have, or a precision that is none of the encoding's.
        """
        space = self.space
        genes = np.zeros(len(self), dtype=np.int64)
        genes[0] = space.resolutions.index(architecture.resolution)
        genes[1] = space.widths.index(architecture.width)
        exits = space.exit_states.index(architecture.exits)
        if self.has_exit_gene:
            genes[2] = exits
        if self.precisions:
            genes[self.precision_gene] = self.precisions.index(architecture.precision)
        elif architecture.precision is not None:
            raise ValueError(f"{architecture}: there is no precision to choose")
        for stage, layers in enumerate(architecture.stages):
            for position, layer in enumerate(layers):
                genes[self.first_layer + stage * space.max_depth + position] = self.code(layer)
        return genes

    def encode_all(self, architectures: list[Architecture]) -> Genes:
        """Return the int64 matrix [architectures, genes]."""
        return np.array([self.encode(a) for a in architectures], dtype=np.int64).reshape(-1, len(self))

    def passed(self, genes: Genes) -> tuple[NDArray[np.int64], Genes]:
        """Return what canonical vectors [N, genes] pass (``SearchSpace.passed``).

        That is, which of the N passes each [P], and its canonical vector [P, genes].
        """
        owners, vectors = [np.empty(0, dtype=np.int64)], [genes[:0]]
        if self.has_exit_gene:
            for ends_there in self._passed_exits.T:
                passed = ends_there[self.exit_index(genes)]
                rows = np.flatnonzero(passed >= 0)
                cut = genes[rows]
                cut[:, 2] = passed[rows]
                owners.append(rows)
                vectors.append(cut * self.running(cut))
        return np.concatenate(owners), np.concatenate(vectors)

    @cached_property
    def _passed_exits(self) -> Genes:
        """Index of the exits [states, exit stages] of what ends at a stage that is passed; else -1."""
        states = self.space.exit_states
        ends = (
            [
                (*(e for e in exits if e < stage), stage) if stage < exits[-1] else None
                for stage in self.space.exit_stages
            ]
            for exits in states
        )
        return np.array([[-1 if end is None else states.index(end) for end in row] for row in ends])

    def repair(self, genes: Genes, how: Repair = "fill") -> Genes:
        """Return canonical vectors [..., genes]: within bounds and without holes inside a stage.

        ``push`` moves present layers to the front (NAT); ``fill`` also clears everything after a
        stage's first 0 (NAT2), which makes depths 2, 3 and 4 likelier in fair shares. Stages behind the
        last exit are cleared, and so are kernel and expansion of layers without an inverted residual.
        """
        fixed = np.clip(genes, np.maximum(self.lower, self.required), self.upper)
        layers = self.layers(fixed)
        if how == "push":
            order = np.argsort(layers == 0, axis=-1, kind="stable")
            layers = np.take_along_axis(layers, order, axis=-1)
        else:
            layers = layers * np.cumprod(layers != 0, axis=-1)
        layers = self._canonical[layers].reshape(fixed[..., self.first_layer :].shape)
        whole: Genes = np.concatenate([fixed[..., : self.first_layer], layers], axis=-1)
        return whole * self.running(whole)

    @cached_property
    def _canonical(self) -> Genes:
        """Each layer gene's canonical form, [states]."""
        return np.array([0, *(self.code(self.layer(code)) for code in range(1, self.states))], dtype=np.int64)

    def decode(self, genes: Genes, how: Repair = "fill") -> Architecture:
        """Return the architecture of one vector [genes], repaired first."""
        return self.decode_all(np.asarray(genes, dtype=np.int64)[None], how)[0]

    def decode_all(self, genes: Genes, how: Repair = "fill") -> list[Architecture]:
        """Return the architectures of vectors [architectures, genes], repaired first."""
        return [self._decode(vector) for vector in self.repair(genes, how).tolist()]

    def _decode(self, genes: list[int]) -> Architecture:
        space, depth = self.space, self.space.max_depth
        exits = space.exit_states[genes[2] if self.has_exit_gene else 0]
        stages = tuple(
            tuple(self._layers[code] for code in genes[start : start + depth] if code)
            for start in range(self.first_layer, self.first_layer + exits[-1] * depth, depth)
        )
        precision = self.precisions[genes[self.precision_gene]] if self.precisions else None
        return Architecture(space.resolutions[genes[0]], space.widths[genes[1]], stages, exits, precision)

    @cached_property
    def _layers(self) -> dict[int, Layer]:
        """The layer of each gene that is not 0."""
        return {code: self.layer(code) for code in range(1, self.states)}

    def one_hot(self, genes: Genes) -> NDArray[np.float64]:
        """Return the float64 matrix [..., sum of choices] with one column a value of a gene."""
        columns = [
            (genes[..., i, None] == np.arange(low, high + 1))
            for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True))
        ]
        return np.concatenate(columns, axis=-1).astype(np.float64)
