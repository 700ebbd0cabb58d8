"""The declarative search space: what a sub-network may choose, read from TOML."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_toml
from nat2deploy.space.architecture import Architecture, Layer

PRESETS = ("nano", "ofa-mbv3")

Channels = Annotated[int, Field(ge=1, le=4096)]
Stride = Annotated[int, Field(ge=1, le=4)]
Kernel = Annotated[int, Field(ge=1, le=15)]
Act = Literal["relu", "hswish"]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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

    Choices are ascending. Presets: ``nano``, ``ofa-mbv3`` (Once-For-All; Cai et al., 2020).
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
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that shapes a network; the lists of resolutions and widths are left out.

        Spaces that differ only in those share blocks, tables and super-networks.
        """
        value = self.model_dump(mode="json", exclude={"name", "resolutions", "widths"})
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def max_depth(self) -> int:
        """Most layers a stage may have."""
        return self.depths[-1]

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
        """Whether every choice of the architecture is one of this space's."""
        return (
            architecture.resolution in self.resolutions
            and architecture.width in self.widths
            and len(architecture.stages) == len(self.stages)
            and all(depth in self.depths for depth in architecture.depths)
            and all(
                kernel in self.kernels and expansion in self.expansions
                for stage in architecture.stages
                for kernel, expansion in stage
            )
        )

    def largest(self, resolution: int | None = None, width: float | None = None) -> Architecture:
        """The architecture with every choice at its maximum."""
        return self._extreme(-1, resolution, width)

    def smallest(self, resolution: int | None = None, width: float | None = None) -> Architecture:
        """The architecture with every choice at its minimum."""
        return self._extreme(0, resolution, width)

    def _extreme(self, end: int, resolution: int | None, width: float | None) -> Architecture:
        stage = (Layer(self.kernels[end], self.expansions[end]),) * self.depths[end]
        return Architecture(
            self.resolutions[end] if resolution is None else resolution,
            self.widths[end] if width is None else width,
            (stage,) * len(self.stages),
        )


def load_space(name_or_path: str) -> SearchSpace:
    """Return a preset by name, or read a space from a TOML file.

    Raises:
        UserError: neither a preset nor a valid file.
    """
    if name_or_path in PRESETS:
        with resources.as_file(resources.files("nat2deploy.space") / f"presets/{name_or_path}.toml") as path:
            return _read(path)
    path = Path(name_or_path)
    if path.suffix != ".toml":
        presets = ", ".join(PRESETS)
        raise UserError(f"no space '{name_or_path}'; use one of {presets}, or the path of a .toml file")
    return _read(path)


def _read(path: Path) -> SearchSpace:
    return parse(SearchSpace, read_toml(path, "search space"), f"search space {path}")
