"""Progressive shrinking as data: what is elastic in each phase, for how long, at which rate.

Once-For-All (Cai et al., 2020, section 3.3): the full network first, then kernel, depth and expansion
open up from the largest choice down, each phase distilled from the full network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.search_space import SearchSpace


@dataclass(frozen=True)
class Choices:
    """What a phase samples from, uniformly and for each layer by itself."""

    kernels: tuple[int, ...]
    expansions: tuple[float, ...]
    depths: tuple[int, ...]

    def sample(
        self, space: SearchSpace, width: float, resolution: int, rng: np.random.Generator
    ) -> Architecture:
        """Draw one architecture at a resolution in pixels."""
        stages = tuple(
            tuple(
                Layer(int(rng.choice(self.kernels)), float(rng.choice(self.expansions)))
                for _ in range(int(rng.choice(self.depths)))
            )
            for _ in space.stages
        )
        return Architecture(resolution, width, stages)


@dataclass(frozen=True)
class Phase:
    """One phase: its choices, length in epochs, and peak learning rate after ``warmup_epochs``.

    ``subnets_per_step`` sub-networks share each step's images; their gradients are averaged.
    """

    name: str
    choices: Choices
    epochs: float
    learning_rate: float
    warmup_epochs: float = 0.0
    subnets_per_step: int = 1
    distil: bool = True
    sort_channels: bool = False


# Phase kind -> share of the epochs, rate relative to the first phase's, sub-networks a step. Lengths and
# rates keep the proportions of Once-For-All's own table, with short steps merged into their phase.
_SHAPE = {
    "full": (0.36, 1.0, 1),
    "kernel": (0.16, 0.5, 1),
    "depth": (0.24, 0.4, 2),
    "expansion": (0.24, 0.4, 2),
}


def progressive_shrinking(space: SearchSpace, *, epochs: float, learning_rate: float) -> list[Phase]:
    """Return the phases for a space within a total number of ``epochs``.

    Dimensions with a single choice have no phase; their share goes to the others. Depth and
    expansion open one choice at a time, the last step of each being the longest.
    """
    full = Choices(space.kernels[-1:], space.expansions[-1:], space.depths[-1:])
    steps: list[tuple[str, str, Choices]] = [("full", "full", full)]
    now = full
    if len(space.kernels) > 1:
        now = replace(now, kernels=space.kernels)
        steps.append(("kernel", "kernel", now))
    for count in range(2, len(space.depths) + 1):
        now = replace(now, depths=space.depths[-count:])
        steps.append((f"depth-{count - 1}", "depth", now))
    for count in range(2, len(space.expansions) + 1):
        now = replace(now, expansions=space.expansions[-count:])
        steps.append((f"expansion-{count - 1}", "expansion", now))
    kinds = [kind for _, kind, _ in steps]
    total = sum(_SHAPE[kind][0] for kind in set(kinds))
    phases = []
    for index, (name, kind, choices) in enumerate(steps):
        share, rate, subnets = _SHAPE[kind]
        last = kind not in kinds[index + 1 :]
        others = kinds.count(kind) - 1
        part = 1.0 if others == 0 else (0.7 if last else 0.3 / others)
        length = epochs * share / total * part
        phases.append(
            Phase(
                name,
                choices,
                length,
                learning_rate * rate,
                warmup_epochs=0.1 * length,
                subnets_per_step=subnets,
                distil=kind != "full",
                sort_channels=kind == "expansion" and "expansion" not in kinds[:index],
            )
        )
    return phases
