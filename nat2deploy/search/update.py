"""What the archive becomes after a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from nat2deploy.errors import UserError
from nat2deploy.plugins import Registry
from nat2deploy.search.archive import Evaluation
from nat2deploy.search.costs import Objectives
from nat2deploy.search.survival import Floats, non_dominated, survivors

T = TypeVar("T")


class ArchiveUpdate(ABC):
    """Merges the round's candidates into the archive."""

    def merge(
        self,
        archive: list[Evaluation],
        candidates: list[Evaluation],
        objectives: Objectives,
        *,
        size: int,
        seed: int,
        directions: Floats | None,
    ) -> list[Evaluation]:
        """Return the next archive: distinct architectures, oldest first.

        Raises:
            UserError: an update that leaves none, or makes evaluations up.
        """
        merged = list({e.architecture: e for e in (*archive, *candidates)}.values())
        kept = self._merge(merged, objectives, size=size, seed=seed, directions=directions)
        names = {id(evaluation) for evaluation in kept or ()}
        if not names or not names <= {id(evaluation) for evaluation in merged}:
            raise UserError(
                f"archive update {type(self).__name__} returned {'others than' if names else 'none of'} the "
                f"{len(merged)} evaluations that it was given; mend it, or choose another update"
            )
        return [evaluation for evaluation in merged if id(evaluation) in names]

    @abstractmethod
    def _merge(
        self,
        merged: list[Evaluation],
        objectives: Objectives,
        *,
        size: int,
        seed: int,
        directions: Floats | None,
    ) -> list[Evaluation]: ...


class Grow(ArchiveUpdate):
    """Keep everything (NAT)."""

    def _merge(
        self,
        merged: list[Evaluation],
        objectives: Objectives,
        *,
        size: int,
        seed: int,
        directions: Floats | None,
    ) -> list[Evaluation]:
        return merged


class ConstantSize(ArchiveUpdate):
    """Keep the ``size`` best by survival (NAT2)."""

    def _merge(
        self,
        merged: list[Evaluation],
        objectives: Objectives,
        *,
        size: int,
        seed: int,
        directions: Floats | None,
    ) -> list[Evaluation]:
        return best(merged, objectives, size, seed=seed, directions=directions)


def objective_matrix(evaluations: list[Evaluation], objectives: Objectives) -> Floats:
    """Objectives [N, M] of evaluations, minimised."""
    rows = [[e.error, *(e.values[metric] for metric in objectives.metrics)] for e in evaluations]
    return np.array(rows, dtype=np.float64).reshape(-1, len(objectives))


def violation_vector(evaluations: list[Evaluation], objectives: Objectives) -> Floats:
    """Summed budget violations [N] of evaluations; 0 is feasible."""
    return np.array(
        [sum(max(0.0, b.violation(e.values[b.metric])) for b in objectives.budgets) for e in evaluations],
        dtype=np.float64,
    )


def best(
    evaluations: list[Evaluation], objectives: Objectives, count: int, *, seed: int, directions: Floats | None
) -> list[Evaluation]:
    """The ``count`` best evaluations by survival, in their order."""
    kept = survivors(
        objective_matrix(evaluations, objectives),
        violation_vector(evaluations, objectives),
        count,
        seed,
        directions,
    )
    return [evaluations[i] for i in kept]


def feasible_front(evaluations: list[Evaluation], objectives: Objectives) -> list[Evaluation]:
    """Evaluations within every budget that no other one dominates, cheapest first."""
    over = violation_vector(evaluations, objectives)
    inside = [e for e, violation in zip(evaluations, over, strict=True) if violation <= 0.0]
    kept = [inside[i] for i in non_dominated(objective_matrix(inside, objectives))]
    return sorted(kept, key=lambda e: e.values[objectives.axes[0]])


def from_its_ends(ordered: Sequence[T]) -> list[T]:
    """The two ends, what is halfway between them, and so on: any first part of it spans the whole."""
    order = list(dict.fromkeys([0, len(ordered) - 1])) if ordered else []
    gaps = deque([(0, len(ordered) - 1)])
    while gaps:
        low, high = gaps.popleft()
        middle = (low + high) // 2
        if low < middle < high:
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return [ordered[index] for index in order]


UPDATES: Registry[type[ArchiveUpdate]] = Registry(
    "update", ArchiveUpdate, {"grow": Grow, "constant-size": ConstantSize}
)
