"""What a network with early exits is made of as stages, and the same with fewer of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nat2deploy.deploy.costs import CostsLike
from nat2deploy.deploy.judging import MAX_ACCURACY_DROP


@dataclass(frozen=True)
class StagesPlan:
    """What a network with early exits is made of, and what its thresholds are for.

    Without a target, early exits may cost half a point of the ensemble's top-1.

    Attributes:
        modules: one a stage: takes the input, or the features of the one before; returns the logits
            [B, classes] of its exit times its weight and, but for the last, features.
        weights: of each exit in the ensemble, adding up to 1.
        costs: of all stages up to each.
        expected_latency_ms: the expected latency to keep.
        top1: the least top-1 to keep, a share.
        accuracy_drop: how far top-1 may lie below the ensemble's, a share.
        confidence: the measure; chosen on validation when not given.
        exits: which of the network's exits, counted from 1, the stages end with; all when empty.
    """

    modules: Sequence[nn.Module]
    weights: Sequence[float]
    costs: Sequence[CostsLike]
    expected_latency_ms: float | None = None
    top1: float | None = None
    accuracy_drop: float | None = None
    confidence: str | None = None
    exits: tuple[int, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which of the network's exits, counted from 1, the stages end with."""
        return self.exits or tuple(range(1, len(self.modules) + 1))

    @property
    def merged(self) -> tuple[int, ...]:
        """The network's exits at which nobody can leave: their stages are one with the next."""
        return tuple(number for number in range(1, self.numbers[-1]) if number not in self.numbers)

    @property
    def drop(self) -> float:
        """How far top-1 may lie below the ensemble's, a share."""
        return MAX_ACCURACY_DROP if self.accuracy_drop is None else self.accuracy_drop

    @property
    def target(self) -> str:
        """The target in words."""
        if self.expected_latency_ms is not None:
            return f"expected latency <= {self.expected_latency_ms:g} ms"
        if self.top1 is not None:
            return f"top-1 >= {100 * self.top1:g} %"
        return f"top-1 >= the ensemble's - {100 * self.drop:g} points"

    def without(self, places: Collection[int]) -> StagesPlan:
        """The same network where nobody leaves at some exits: each one's stage is merged with the next.

        Args:
            places: of the exits among these stages, from 0; not the last.
        """
        modules: list[nn.Module] = []
        weights: list[float] = []
        before: nn.Module | None = None
        weight = 0.0
        for place, (module, own) in enumerate(zip(self.modules, self.weights, strict=True)):
            before = module if before is None else MergedStage(before, module).eval()
            weight += own
            if place not in places:
                modules.append(before)
                weights.append(weight)
                before, weight = None, 0.0
        return replace(
            self,
            modules=modules,
            weights=weights,
            costs=[costs for place, costs in enumerate(self.costs) if place not in places],
            exits=tuple(number for place, number in enumerate(self.numbers) if place not in places),
        )


class MergedStage(nn.Module):
    """Two stages as one, whose logits are the sum of theirs."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """[B, C, H, W] to logits [B, classes], and features where the second stage gives some."""
        logits, features = self.first(x)
        found = self.second(features)
        if isinstance(found, tuple):
            return logits + found[0], found[1]
        total: Tensor = logits + found
        return total
