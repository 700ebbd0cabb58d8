"""The declarative search space: what a sub-network may choose, read from TOML."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nat2deploy.errors import UserError
from nat2deploy.files import parse_toml
from nat2deploy.space.architecture import MAIN, POINTWISE, TRANSFORM, Architecture, Layer

PRESETS = ("nano", "ofa-mbv3", "ofav2-mbv3")
# Behind a preset's name: how many exits (OFAv2's single and early ones; ours: several), and what else.
EXITS = {"se": "final", "ee": "one", "me": "several"}
BODIES = {"b": (False, False), "d": (True, False), "p": (False, True), "dp": (True, True)}

Channels = Annotated[int, Field(ge=1, le=4096)]
Stride = Annotated[int, Field(ge=1, le=4)]
Kernel = Annotated[int, Field(ge=1, le=15)]
Act = Literal["relu", "hswish"]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class StemSpec(_Spec):
    """The first convolution, 3×3."""

    channels: Channels
    stride: Stride
    activation: Act


class FirstBlockSpec(_Spec):
    """The fixed inverted-residual block without expansion behind the stem."""

    channels: Channels
    kernel: Kernel
    activation: Act


class StageSpec(_Spec):
    """One stage of elastic layers; its first layer has the stride and no shortcut."""

    channels: Channels
    stride: Stride
    se: bool
    activation: Act


class HeadSpec(_Spec):
    """The final 1×1 convolutions, as multiples of the last stage's width."""

    expansion: Annotated[int, Field(ge=1, le=64)]
    features: Annotated[int, Field(ge=1, le=64)]
    activation: Act


class SearchSpace(_Spec):
    """A MobileNetV3-like space with elastic depth, kernel, expansion, resolution and width.

    Choices are ascending. OFAv2 (Sarti et al., 2023) adds, each by itself: ``exits`` behind every stage, of
    which an architecture has one or several; ``dense_skips`` inside a stage; ``parallel_branches`` beside
    each inverted residual. Presets: ``nano``, ``ofa-mbv3`` (Once-For-All; Cai et al., 2020) and
    ``ofav2-mbv3``, each with a variant behind its name, such as ``nano-ee-d``.
    """

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
    resolutions: tuple[Annotated[int, Field(ge=8, le=1024)], ...]
    widths: tuple[Annotated[float, Field(gt=0, le=8)], ...]
    kernels: tuple[Kernel, ...]
    expansions: tuple[Annotated[float, Field(ge=1, le=16)], ...]
    depths: tuple[Annotated[int, Field(ge=1, le=16)], ...]
    stem: StemSpec
    first_block: FirstBlockSpec
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=16)]
    head: HeadSpec
    exits: Literal["final", "one", "several"] = "final"
    dense_skips: bool = False
    parallel_branches: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for field in ("resolutions", "widths", "kernels", "expansions", "depths"):
            choices = getattr(self, field)
            if not choices or list(choices) != sorted(set(choices)):
                raise ValueError(f"{field} must be ascending and without repeats, and hold at least one")
        if any(kernel % 2 == 0 for kernel in (*self.kernels, self.first_block.kernel)):
            raise ValueError("kernels must be odd")
        if list(self.depths) != list(range(self.depths[0], self.depths[-1] + 1)):
            raise ValueError("depths must be consecutive, such as [2, 3, 4]")
        if self.exits == "several" and len(self.stages) > 8:
            raise ValueError("several exits need 8 stages or fewer")
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes a network; the lists of resolutions and widths are left out.

        Spaces that differ only in those share blocks, tables and super-networks.
        """
        value = self.model_dump(mode="json", exclude={"name", "resolutions", "widths"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def max_depth(self) -> int:
        """Most layers a stage may have."""
        return self.depths[-1]

    @property
    def exit_stages(self) -> tuple[int, ...]:
        """The stages, counted from 1, that the super-network has an exit behind."""
        stages = range(1, len(self.stages) + 1)
        return tuple(stages) if self.exits != "final" else (len(self.stages),)

    def passed(self, architecture: Architecture) -> tuple[Architecture, ...]:
        """The sub-networks that end at the exits which one of the space passes, shortest first.

        Each is all of it up to there, with the exits that it has so far and that one: where it is run, what
        they answer is known but for their classifiers.
        """
        before = (stage for stage in self.exit_stages if stage < len(architecture.stages))
        return tuple(
            replace(
                architecture,
                stages=architecture.stages[:stage],
                exits=(*(e for e in architecture.exits if e < stage), stage),
            )
            for stage in before
        )

    @property
    def exit_states(self) -> tuple[tuple[int, ...], ...]:
        """What an architecture's exits may be: sets of stages, ordered by their last one."""
        if self.exits != "several":
            return tuple((stage,) for stage in self.exit_stages)
        return tuple(
            (*earlier, last)
            for last in self.exit_stages
            for count in range(last)
            for earlier in itertools.combinations(range(1, last), count)
        )

    @property
    def branch_states(self) -> tuple[int, ...]:
        """What a layer's branches may be, as bits: any but none of them, with ``parallel_branches``."""
        return tuple(range(MAIN, MAIN + POINTWISE + TRANSFORM + 1)) if self.parallel_branches else (MAIN,)

    def restrict(
        self, *, resolutions: tuple[int, ...] | None = None, widths: tuple[float, ...] | None = None
    ) -> SearchSpace:
        """Return the space with fewer resolutions or widths.

        Raises:
            UserError: a value that the space does not have, or none left.
        """
        kept: dict[str, tuple[float, ...]] = {}
        for field, wanted in (("resolutions", resolutions), ("widths", widths)):
            if wanted is None:
                continue
            unknown = sorted(set(wanted) - set(getattr(self, field)))
            if unknown or not wanted:
                have = ", ".join(f"{value:g}" for value in getattr(self, field))
                what = f"{unknown[0]:g} is not in it" if unknown else "none given"
                raise UserError(f"space '{self.name}': {field}: {what}; choose from {have}")
            kept[field] = tuple(sorted(set(wanted)))
        return self.model_copy(update=kept) if kept else self

    def contains(self, architecture: Architecture) -> bool:
        """Whether every choice of the architecture is one of this space's.

        Where there are early exits, any set of them counts: the super-network runs several at once also
        where the search chooses one.
        """
        return (
            architecture.resolution in self.resolutions
            and architecture.width in self.widths
            and set(architecture.exits) <= set(self.exit_stages)
            and all(depth in self.depths for depth in architecture.depths)
            and all(self._has(layer) for stage in architecture.stages for layer in stage)
        )

    def _has(self, layer: Layer) -> bool:
        residual = layer.kernel in self.kernels and layer.expansion in self.expansions
        return layer.branches in self.branch_states and (residual or not layer.branches & MAIN)

    def largest(self, resolution: int | None = None, width: float | None = None) -> Architecture:
        """The architecture with every choice at its maximum."""
        return self._extreme(-1, resolution, width, self.exit_states[-1])

    def full(self, resolution: int | None = None, width: float | None = None) -> Architecture:
        """The largest architecture with all exits: what a super-network's training begins with."""
        return self._extreme(-1, resolution, width, self.exit_stages)

    def smallest(self, resolution: int | None = None, width: float | None = None) -> Architecture:
        """The architecture with every choice at its minimum."""
        return self._extreme(0, resolution, width, self.exit_states[0])

    def _extreme(
        self, end: int, resolution: int | None, width: float | None, exits: tuple[int, ...]
    ) -> Architecture:
        branches = self.branch_states[-1]
        if end == 0 and self.parallel_branches:
            branches = TRANSFORM  # next to free where the channel count stays
        stage = (Layer(self.kernels[end], self.expansions[end], branches),) * self.depths[end]
        return Architecture(
            self.resolutions[end] if resolution is None else resolution,
            self.widths[end] if width is None else width,
            (stage,) * exits[-1],
            exits,
        )


def load_space(name_or_path: str) -> SearchSpace:
    """Return a preset by name (``nano``), a variant of one (``nano-ee-d``), or read a space from a TOML file.

    A variant names the exits (``se`` the final one, ``ee`` one of them, ``me`` several) and the body (``b``
    base, ``d`` dense skips, ``p`` parallel branches, ``dp`` both): OFAv2's eight, and ``me``.

    Raises:
        UserError: neither a preset nor a valid file.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return _read(path)
    name, exits, body = name_or_path, "", ""
    if name not in PRESETS:
        name, exits, body = [*name_or_path.rsplit("-", 2), "", ""][:3]
        if name not in PRESETS or exits not in EXITS or body not in BODIES:
            presets = ", ".join(PRESETS)
            raise UserError(
                f"no space '{name_or_path}'; use one of {presets}, each with or without a variant such as "
                "-ee-d behind it, or the path of a .toml file"
            )
    with resources.as_file(resources.files("nat2deploy.space") / f"presets/{name}.toml") as preset:
        space = _read(preset)
    if not exits:
        return space
    dense, parallel = BODIES[body]
    return space.model_copy(
        update={
            "name": name_or_path,
            "exits": EXITS[exits],
            "dense_skips": dense,
            "parallel_branches": parallel,
        }
    )


def _read(path: Path) -> SearchSpace:
    return parse_toml(SearchSpace, path, "search space")
