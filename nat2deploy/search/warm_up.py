"""The warm-up of a search: super-networks learn new data before the first archive is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nat2deploy.data.sets import ImageData
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.loop import LoopSettings, Progress
from nat2deploy.training.schedule import Choices, Phase
from nat2deploy.training.supernet import ShrinkingSettings, adapt, one_of, train_supernet

Report = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""
Adapter = Callable[..., None]
"""``training.supernet.adapt``, or what does the same on a cluster."""

# Of the three phases: epochs of a full network to those of the last phase, and the share of each that the
# rate rises for (the authors' 100 to 150, 5 of 100, 10 of 150).
_FULL_EPOCHS, _FULL_RISE, _LAST_RISE = 2 / 3, 1 / 20, 1 / 15


class WarmUp(ABC):
    """Trains a search's super-networks on its data, in a run's ``folder``; goes on where it was killed."""

    def __init__(
        self, folder: Path, data: ImageData, settings: SearchSettings, adapter: Adapter = adapt
    ) -> None:
        self.folder = folder
        self.data = data
        self.settings = settings
        self.batch_size = min(settings.batch_size, len(data.train))
        self._adapt = adapter

    @abstractmethod
    def train(
        self, supernet: AnySuperNetwork, info: SuperNetworkInfo, widths: Sequence[float], report: Report
    ) -> AnySuperNetwork:
        """Train the super-networks of ``widths``, those that do not know the data; returns all of them."""

    def clear(self) -> None:  # noqa: B027
        """Remove what the warm-up kept to go on with, once its result is on disk."""


class Uniform(WarmUp):
    """The full network of each width, and others drawn uniformly, at each step; no teacher."""

    def train(
        self, supernet: AnySuperNetwork, info: SuperNetworkInfo, widths: Sequence[float], report: Report
    ) -> AnySuperNetwork:
        """Train in place."""
        settings, space = self.settings, supernet.space
        choices = Choices.of(space)
        others = settings.warmup_subnets or settings.adapt_subnets

        def sample(step: int) -> list[Architecture]:
            rng = np.random.default_rng([settings.seed, step, 3])
            resolution = int(rng.choice(space.resolutions))
            drawn = [choices.sample(space, one_of(widths, rng), resolution, rng) for _ in range(others)]
            return [*(space.full(resolution, width) for width in widths), *drawn]

        self._adapt(
            supernet,
            sample,
            self.data,
            LoopSettings(
                epochs=settings.warmup_epochs,
                learning_rate=settings.warmup_learning_rate,
                warmup_epochs=settings.warmup_epochs / 10,
                batch_size=self.batch_size,
                weight_decay=settings.adapt_weight_decay,
                clip=settings.adapt_clip,
                seed=settings.seed,
            ),
            smoothing=settings.label_smoothing,
            order=settings.exit_weights,
            checkpoint=self.folder / ".adaptation",
            tag="warm-up",
            progress=staged(report, "warm-up"),
        )
        return supernet


class ThreePhase(WarmUp):
    """NAT2's: the full network of each width, then uniform sub-networks taught by the widest full one.

    That teacher is the search's, too (Sarti et al., 2023, released code).
    """

    @property
    def _file(self) -> Path:
        return self.folder / "warm-up.safetensors"

    def train(
        self, supernet: AnySuperNetwork, info: SuperNetworkInfo, widths: Sequence[float], report: Report
    ) -> AnySuperNetwork:
        """Train phase by phase, each kept on disk; leaves ``teacher.safetensors``."""
        settings = self.settings
        phases = three_phases(supernet.space, widths, settings)
        how = ShrinkingSettings(
            batch_size=self.batch_size,
            seed=settings.seed,
            label_smoothing=settings.label_smoothing,
            teacher="extracted",
            clip=settings.adapt_clip,
            weight_decay=settings.adapt_weight_decay,
            exit_weights=settings.exit_weights,
        )

        def tell(phase: Phase, done: int, total: int, _: float) -> None:
            report(f"warm-up {phase.name}", done, total)

        def until(count: int) -> AnySuperNetwork:
            trained, _ = train_supernet(
                supernet, phases[:count], self.data, info, self._file, how, progress=tell
            )
            return trained

        teacher = self.folder / "teacher.safetensors"
        if not teacher.exists():
            save_supernet(teacher, until(len(phases) - 1), info)
        return until(len(phases))

    def clear(self) -> None:
        """Remove the phases' file."""
        self._file.unlink(missing_ok=True)


def three_phases(space: SearchSpace, widths: Sequence[float], settings: SearchSettings) -> list[Phase]:
    """The phases of ``ThreePhase`` for super-networks of ``widths``, in the authors' proportions."""
    full_epochs = settings.warmup_full_epochs or settings.warmup_epochs * _FULL_EPOCHS
    full = [
        Phase(
            f"full w{width:g}",
            Choices.full(space),
            full_epochs,
            settings.warmup_learning_rate,
            warmup_epochs=full_epochs * _FULL_RISE,
            distil=False,
            widths=(width,),
        )
        for width in widths
    ]
    last = Phase(
        "sub-networks",
        Choices.of(space),
        settings.warmup_epochs,
        settings.warmup_learning_rate,
        warmup_epochs=settings.warmup_epochs * _LAST_RISE,
        subnets_per_step=settings.warmup_subnets or settings.adapt_subnets,
        sort_channels=True,
        widths=tuple(widths),
    )
    return [*full, last]


def staged(report: Report, stage: str) -> Progress:
    """Progress of a training loop, told as that of a stage."""
    return lambda done, total, _: report(stage, done, total)


WARM_UPS: dict[str, type[WarmUp]] = {"uniform": Uniform, "three-phase": ThreePhase}
