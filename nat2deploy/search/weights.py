"""The super-network of a search: transferred to the data, adapted each round, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from nat2deploy.data.sets import ImageData
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, save_supernet
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.loop import LoopSettings, Progress
from nat2deploy.training.schedule import Choices
from nat2deploy.training.supernet import Sampler, adapt
from nat2deploy.training.teacher import CalibratedTeacher

Report = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""


class SearchWeights:
    """A super-network file that the search owns: ``supernet.safetensors``, with its version inside.

    Version 0 is the given super-network, moved to the data set; each adaptation counts one up. The
    file is replaced whole, so a killed search finds the last finished version.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        space: SearchSpace,
        data: ImageData,
        settings: SearchSettings,
    ) -> None:
        self.path = folder / "supernet.safetensors"
        self.checkpoint = folder / ".adaptation"
        self.source = source
        self.space = space
        self.data = data
        self.settings = settings
        self.teacher: nn.Module | None = None
        self.adapt_with: Callable[..., None] = adapt  # one process; a cluster's replaces it
        self._held: tuple[SuperNetwork, SuperNetworkInfo] | None = None

    @property
    def supernet(self) -> SuperNetwork:
        """The current weights, in evaluation mode."""
        return self._loaded[0]

    @property
    def version(self) -> int:
        """How many adaptations are behind the current weights."""
        return self._loaded[1].version

    @property
    def _loaded(self) -> tuple[SuperNetwork, SuperNetworkInfo]:
        if self._held is None:
            self._held = load_supernet(self.path)
        return self._held

    def prepare(self, report: Report) -> None:
        """Load the current version, or make version 0: new classifier and warm-up where the data differ.

        Raises:
            UserError: the super-network cannot be read.
        """
        if not self.path.exists():
            self._transfer(report)
        teacher_path = self.path.with_name("teacher.safetensors")
        if not teacher_path.exists():
            save_supernet(teacher_path, *self._loaded)
        self.teacher = CalibratedTeacher(load_supernet(teacher_path)[0], self.data, self.settings.seed)

    def adapt(self, sampler: Sampler, report: Report) -> None:
        """Train on sampled sub-networks and save the result as the next version."""
        supernet, info = self._loaded
        self._held = None  # an interrupted adaptation leaves half-trained weights; the file has whole ones
        settings = self.settings
        if settings.adapt_epochs > 0:
            self.adapt_with(
                supernet,
                sampler,
                self.data,
                LoopSettings(
                    epochs=settings.adapt_epochs,
                    learning_rate=settings.adapt_learning_rate,
                    final_rate=settings.adapt_learning_rate / 10,
                    batch_size=self._batch_size,
                    weight_decay=settings.adapt_weight_decay,
                    clip=settings.adapt_clip,
                    seed=settings.seed * 7919 + info.version + 1,
                ),
                teacher=self.teacher,
                checkpoint=self.checkpoint,
                tag=f"round {info.version}",
                progress=_staged(report, "adapt"),
            )
        info = info.model_copy(update={"version": info.version + 1})
        save_supernet(self.path, supernet, info)
        self._held = (supernet, info)

    @property
    def _batch_size(self) -> int:
        return min(self.settings.batch_size, len(self.data.train))

    def _transfer(self, report: Report) -> None:
        supernet, info = load_supernet(self.source)
        fresh = info.data != self.data.name or info.labels != self.data.labels
        if fresh and supernet.classes != self.data.classes:
            # From the seed: a search begun again draws the same.
            supernet = supernet.with_classes(self.data.classes, self.settings.seed)
        described = SuperNetworkInfo(
            space=supernet.space.restrict(resolutions=self.space.resolutions),
            width=info.width,
            classes=self.data.classes,
            data=self.data.name,
            labels=self.data.labels,
            mean=self.data.mean,
            std=self.data.std,
            phases=info.phases,
        )
        supernet.space = described.space
        if fresh and self.settings.warmup_epochs > 0:
            self._warm_up(supernet, report)
        save_supernet(self.path, supernet, described)
        self._held = (supernet.eval(), described)

    def _warm_up(self, supernet: SuperNetwork, report: Report) -> None:
        """Train on the new data by uniform sampling: the full network and others a step."""
        settings, space = self.settings, supernet.space
        choices = Choices.of(space)
        others = settings.warmup_subnets or settings.adapt_subnets

        def sample(step: int) -> list[Architecture]:
            rng = np.random.default_rng([settings.seed, step, 3])
            resolution = int(rng.choice(space.resolutions))
            drawn = [choices.sample(space, supernet.width, resolution, rng) for _ in range(others)]
            return [space.full(resolution), *drawn]

        self.adapt_with(
            supernet,
            sample,
            self.data,
            LoopSettings(
                epochs=settings.warmup_epochs,
                learning_rate=settings.warmup_learning_rate,
                warmup_epochs=settings.warmup_epochs / 10,
                batch_size=self._batch_size,
                weight_decay=settings.adapt_weight_decay,
                clip=settings.adapt_clip,
                seed=settings.seed,
            ),
            checkpoint=self.checkpoint,
            tag="warm-up",
            progress=_staged(report, "warm-up"),
        )


def _staged(report: Report, stage: str) -> Progress:
    return lambda done, total, _: report(stage, done, total)
