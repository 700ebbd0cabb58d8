"""A network with early exits as stages: each exit's answer, and what an image costs that leaves there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from nat2deploy.engines.base import Array, Engine
from nat2deploy.engines.stage_chain import StageChain
from nat2deploy.errors import UserError
from nat2deploy.target import Target


class StagedEngine(Engine):
    """Stages of ONNX Runtime on the CPU, run up to one of the exits: the last, unless ``up_to`` says another.

    Args:
        models: as of ``StageChain``.
        weights: as of ``StageChain``.
        target: its threads and batch are what the engine uses.
        confidence: as of ``StageChain``.
        source: where the models came from, for errors.

    Attributes:
        models: the bytes of each stage's ONNX file that is run.

    Raises:
        UserError: as ``StageChain``, or another target.
    """

    def __init__(
        self,
        models: Sequence[bytes],
        weights: Sequence[float],
        target: Target,
        *,
        confidence: str = "max-softmax",
        source: str = "the exported network",
    ) -> None:
        if target.backend != "onnxruntime" or target.kind != "cpu":
            raise UserError(f"stages run in ONNX Runtime on the CPU, not on {target}")
        self._chain = StageChain(
            models,
            weights,
            confidence=confidence,
            threads=target.threads,
            batch=target.batch,
            source=source,
        )
        super().__init__(target, self._chain.ends.input_shape, any_batch=self._chain.ends.any_batch)
        self.models = tuple(models)

    @property
    def exits(self) -> int:
        """How many stages are run."""
        return len(self.models)

    def up_to(self, exits: int) -> StagedEngine:
        """The same engine, with the first so many exits; sessions are shared."""
        shorter = copy.copy(self)
        shorter.models = self.models[:exits]
        return shorter

    def measuring(self, confidence: str) -> StagedEngine:
        """The same engine with another measure of confidence."""
        other = copy.copy(self)
        other._chain = copy.copy(self._chain)
        other._chain.confidence = confidence
        return other

    def answers(self, images: Array) -> Array:
        """What each exit of all answers: [B, 3, r, r] to logits [exits, B, classes].

        Raises:
            UserError: wrong type, rank, sizes or batch.
        """
        return self._chain.answers(self._checked(images))

    def _run(self, images: Array) -> Array:
        found: Array = self._chain.answers(images)[self.exits - 1]
        return found

    def _prepare(self, images: Array) -> Callable[[], None]:
        return self._chain.prepare(images, self.exits)

    def _save(self, path: Path) -> None:
        raise UserError(f"cannot write {path}: stages are several files; export a bundle")
