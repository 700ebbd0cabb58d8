"""The super-networks of a search: transferred to the data, adapted each round, kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nat2deploy.data.sets import ImageData
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.warm_up import WARM_UPS, Adapter, Report, staged
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, save_supernet
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.supernet.several_widths import AnySuperNetwork, networks_of, side_by_side
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.supernet import Sampler, adapt
from nat2deploy.training.teacher import CalibratedTeacher


class SearchWeights:
    """A super-network file that the search owns: ``supernet.safetensors``, with its version inside.

    Version 0 is the given super-network, moved to the data set; each adaptation counts one up, also one of
    no epochs, which leaves the weights as they are. Those of
    several widths are in the one file side by side, each with weights of its own. The file is replaced
    whole, so a killed search finds the last finished version.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[Path],
        space: SearchSpace,
        data: ImageData,
        settings: SearchSettings,
        adapter: Adapter | None = None,
    ) -> None:
        self.path = folder / "supernet.safetensors"
        self.checkpoint = folder / ".adaptation"
        self.sources = sources
        self.space = space
        self.data = data
        self.settings = settings
        self.teacher: nn.Module | None = None
        self._adapt: Adapter = adapter or adapt
        self._held: tuple[AnySuperNetwork, SuperNetworkInfo] | None = None
        self._warm_up = WARM_UPS[settings.warmup](folder, data, settings, self._adapt)

    @property
    def supernet(self) -> AnySuperNetwork:
        """The current weights, in evaluation mode."""
        return self._loaded[0]

    @property
    def version(self) -> int:
        """How many adaptations are behind the current weights."""
        return self._loaded[1].version

    @property
    def _loaded(self) -> tuple[AnySuperNetwork, SuperNetworkInfo]:
        if self._held is None:
            self._held = load_supernet(self.path)
        return self._held

    def prepare(self, report: Report) -> None:
        """Load the current version, or make version 0: new classifiers and warm-up where the data differ.

        Raises:
            UserError: the super-network cannot be read.
        """
        if not self.path.exists():
            self._transfer(report)
        self._warm_up.clear()
        loaded = self._loaded
        if self.settings.adapt_epochs == 0:
            return
        teacher_path = self.path.with_name("teacher.safetensors")
        if not teacher_path.exists():
            save_supernet(teacher_path, *loaded)
        self.teacher = CalibratedTeacher(
            load_supernet(teacher_path)[0],
            self.data,
            self.settings.seed,
            self.settings.exit_weights,
            epochs=self.settings.adapt_epochs,
        )

    def adapt(self, sampler: Sampler, report: Report) -> None:
        """Train on sampled sub-networks and save the result as the next version."""
        supernet, info = self._loaded
        self._held = None  # an interrupted adaptation leaves half-trained weights; the file has whole ones
        settings = self.settings
        if settings.adapt_epochs > 0:
            self._adapt(
                supernet,
                sampler,
                self.data,
                LoopSettings(
                    epochs=settings.adapt_epochs,
                    learning_rate=settings.adapt_learning_rate,
                    final_rate=settings.adapt_learning_rate / 10,
                    batch_size=min(settings.batch_size, len(self.data.train)),
                    weight_decay=settings.adapt_weight_decay,
                    clip=settings.adapt_clip,
                    seed=settings.seed * 7919 + info.version + 1,
                ),
                teacher=self.teacher,
                smoothing=settings.label_smoothing,
                order=settings.exit_weights,
                checkpoint=self.checkpoint,
                tag=f"round {info.version}",
                progress=staged(report, "adapt"),
            )
        info = info.model_copy(update={"version": info.version + 1})
        self._save(supernet, info)

    def clear(self) -> None:
        """Remove what a training kept to go on with, once its result is on disk."""
        self.checkpoint.unlink(missing_ok=True)

    def _transfer(self, report: Report) -> None:
        networks: list[SuperNetwork] = []
        fresh: list[float] = []
        phases: list[tuple[str, ...]] = []
        for source in self.sources:
            held, info = load_supernet(source)
            new = info.data != self.data.name or info.labels != self.data.labels
            for network in networks_of(held):
                if new and network.classes != self.data.classes:
                    # From the seed: a search begun again draws the same.
                    network = network.with_classes(self.data.classes, self.settings.seed)
                network.space = network.space.restrict(resolutions=self.space.resolutions)
                networks.append(network)
                if new:
                    fresh.append(network.width)
                phases.append(info.phases)
        supernet = side_by_side(networks)
        widths = tuple(network.width for network in networks_of(supernet))
        described = SuperNetworkInfo(
            space=supernet.space,
            width=widths[0],
            more_widths=widths[1:],
            classes=self.data.classes,
            data=self.data.name,
            labels=self.data.labels,
            mean=self.data.mean,
            std=self.data.std,
            phases=phases[0],
        )
        if fresh and self.settings.warmup_epochs > 0:
            supernet = self._warm_up.train(supernet, described, sorted(fresh), report)
        self._save(supernet.eval(), described)

    def _save(self, supernet: AnySuperNetwork, info: SuperNetworkInfo) -> None:
        save_supernet(self.path, supernet, info)
        self.clear()
        self._held = (supernet, info)
