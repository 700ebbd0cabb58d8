"""Progressive shrinking as data: what is elastic in each phase, for how long, at which rate.

Once-For-All (Cai et al., 2020, section 3.3): the full network first, then kernel, depth and expansion
open up from the largest choice down, each phase distilled. OFAv2 (Sarti et al., 2023) opens parallel
branches and exits between kernel and depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nat2deploy.space.architecture import MAIN, Architecture, Layer
from nat2deploy.space.search_space import SearchSpace

Kind = Literal["full", "kernel", "branches", "exits", "depth", "expansion"]
ScheduleName = Literal["scaled", "eps-paper"]


@dataclass(frozen=True)
class Choices:
    """What a phase samples from, uniformly and for each layer by itself.

    ``branches`` are states as bits; ``exits`` sets of stages, of which an architecture takes one.
    """

    kernels: tuple[int, ...]
    expansions: tuple[float, ...]
    depths: tuple[int, ...]
    branches: tuple[int, ...] = (MAIN,)
    exits: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def full(cls, space: SearchSpace) -> Choices:
        """The full network alone."""
        return cls(
            space.kernels[-1:],
            space.expansions[-1:],
            space.depths[-1:],
            space.branch_states[-1:],
            (space.exit_stages,),
        )

    @classmethod
    def of(cls, space: SearchSpace) -> Choices:
        """Everything that a space may choose."""
        return cls(space.kernels, space.expansions, space.depths, space.branch_states, space.exit_states)

    def sample(
        self, space: SearchSpace, width: float, resolution: int, rng: np.random.Generator
    ) -> Architecture:
        """Draw one architecture at a resolution in pixels."""
        states = self.exits or space.exit_states[-1:]
        exits = states[int(rng.integers(len(states)))]
        stages = tuple(
            tuple(
                Layer(
                    int(rng.choice(self.kernels)),
                    float(rng.choice(self.expansions)),
                    int(rng.choice(self.branches)),
                )
                for _ in range(int(rng.choice(self.depths)))
            )
            for _ in range(exits[-1])
        )
        return Architecture(resolution, width, stages, exits)

    def extreme(self, space: SearchSpace, width: float, resolution: int, end: Literal[0, -1]) -> Architecture:
        """The architecture with every choice at its first (0) or last (-1) value."""
        exits = (self.exits or space.exit_states[-1:])[end]
        layer = Layer(self.kernels[end], self.expansions[end], self.branches[end])
        return Architecture(resolution, width, ((layer,) * self.depths[end],) * exits[-1], exits)


@dataclass(frozen=True)
class Phase:
    """One phase: its choices, length in epochs, and peak learning rate after ``warmup_epochs``.

    ``subnets_per_step`` sub-networks share each step's images; their gradients are averaged, or ``summed`` as
    in Once-For-All's released code, whose rates are meant for that. ``widths``: which of several
    super-networks side by side they are drawn from, all of them when it is empty.
    """

    name: str
    choices: Choices
    epochs: float
    learning_rate: float
    warmup_epochs: float = 0.0
    subnets_per_step: int = 1
    distil: bool = True
    sort_channels: bool = False
    widths: tuple[float, ...] = ()
    summed: bool = False


# Phase kind -> share of the epochs, rate relative to the first phase's, sub-networks a step. Lengths keep
# the proportions of the papers' tables, with short steps merged into their phase; rates are higher, for
# budgets a hundred times smaller.
_SCALED: dict[Kind, tuple[float, float, int]] = {
    "full": (0.36, 1.0, 1),
    "kernel": (0.16, 0.5, 1),
    "branches": (0.12, 0.4, 2),
    "exits": (0.24, 0.4, 2),
    "depth": (0.24, 0.4, 2),
    "expansion": (0.24, 0.4, 2),
}
# Phase kind -> (epochs, rate, warm-up epochs) of each step, and sub-networks a step: OFAv2's released code.
_PAPER: dict[Kind, tuple[list[tuple[float, float, float]], int]] = {
    "full": ([(180, 0.08, 0)], 1),
    "kernel": ([(120, 0.03, 5)], 1),
    "branches": ([(25, 2.5e-3, 0), (120, 7.5e-3, 5)], 2),
    "exits": ([(25, 1.875e-3, 0), (60, 3.75e-3, 5), (90, 7.5e-3, 5), (120, 1.5e-2, 5)], 2),
    "depth": ([(25, 2.5e-3, 0), (120, 7.5e-3, 5)], 2),
    "expansion": ([(25, 2.5e-3, 0), (120, 7.5e-3, 5)], 4),
}


@dataclass(frozen=True)
class _Step:
    """One step of shrinking: the ``index``-th of ``count`` of its kind."""

    kind: Kind
    choices: Choices
    index: int
    count: int

    @property
    def name(self) -> str:
        """Such as ``kernel``, ``depth-2``."""
        return self.kind if self.kind in ("full", "kernel") else f"{self.kind}-{self.index + 1}"


def _steps(space: SearchSpace) -> list[_Step]:
    """What opens, in order; dimensions with a single choice have no step."""
    now = Choices.full(space)
    steps = [_Step("full", now, 0, 1)]
    now = replace(now, exits=space.exit_states[-1:])

    def open_up(kind: Kind, field: str, values: list[object]) -> None:
        nonlocal now
        for index, value in enumerate(values):
            now = replace(now, **{field: value})  # type: ignore[arg-type]
            steps.append(_Step(kind, now, index, len(values)))

    open_up("kernel", "kernels", [space.kernels] if len(space.kernels) > 1 else [])
    open_up("branches", "branches", list(_fewer(space.branch_states, int.bit_count)))
    open_up("exits", "exits", list(_fewer(space.exit_states, lambda exits: exits[-1])))
    open_up("depth", "depths", list(_fewer(space.depths, int)))
    open_up("expansion", "expansions", list(_fewer(space.expansions, float)))
    return steps


def _fewer(values: tuple[object, ...], size: Callable[..., float]) -> list[tuple[object, ...]]:
    """Ever more of the values, from the largest size down: all of the two largest sizes, of three, ..."""
    sizes = sorted({size(value) for value in values})
    return [
        tuple(value for value in values if size(value) >= sizes[-count]) for count in range(2, len(sizes) + 1)
    ]


def progressive_shrinking(space: SearchSpace, *, epochs: float, learning_rate: float) -> list[Phase]:
    """Return the phases for a space within a total number of ``epochs``.

    Dimensions with a single choice have no phase; their share goes to the others. Where a dimension opens
    one choice at a time, its last step is the longest.
    """
    steps = _steps(space)
    # In the order of the steps, not a set's: another process must get the same lengths to the last bit.
    total = sum(_SCALED[kind][0] for kind in dict.fromkeys(step.kind for step in steps))
    phases = []
    for step in steps:
        share, rate, subnets = _SCALED[step.kind]
        last = step.index == step.count - 1
        part = 1.0 if step.count == 1 else (0.7 if last else 0.3 / (step.count - 1))
        length = epochs * share / total * part
        phases.append(_phase(step, length, learning_rate * rate, 0.1 * length, subnets))
    return phases


def extended_progressive_shrinking(space: SearchSpace) -> list[Phase]:
    """Return the phases of OFAv2's paper for a space, with its lengths and rates.

    A dimension with fewer steps than the paper's has the last ones; one with more repeats the first.
    """
    phases = []
    for step in _steps(space):
        rows, subnets = _PAPER[step.kind]
        length, rate, warmup = rows[max(0, len(rows) - step.count + step.index)]
        phases.append(replace(_phase(step, length, rate, warmup, subnets), summed=True))
    return phases


def _phase(step: _Step, epochs: float, rate: float, warmup: float, subnets: int) -> Phase:
    return Phase(
        step.name,
        step.choices,
        epochs,
        rate,
        warmup_epochs=warmup,
        subnets_per_step=subnets,
        distil=step.kind != "full",
        sort_channels=step.kind == "expansion" and step.index == 0,
    )


def make_schedule(
    name: ScheduleName, space: SearchSpace, *, epochs: float, learning_rate: float
) -> list[Phase]:
    """Return the phases of a schedule by name; ``eps-paper`` brings its own lengths and rates."""
    if name == "eps-paper":
        return extended_progressive_shrinking(space)
    return progressive_shrinking(space, epochs=epochs, learning_rate=learning_rate)
