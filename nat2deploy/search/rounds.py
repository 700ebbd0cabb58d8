"""Which evaluations a search's archive holds at each version of the weights, from what is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from nat2deploy.errors import UserError
from nat2deploy.search.archive import ArchiveFile, Evaluation
from nat2deploy.search.costs import Objectives
from nat2deploy.search.initialisation import smallest_and_largest
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.survival import Floats, reference_directions
from nat2deploy.search.update import UPDATES, best
from nat2deploy.space.architecture import Architecture


class Rounds:
    """The archive of every round, replayed from ``archive.jsonl``: a search that goes on finds the same.

    A round's archive may be asked for once it was judged whole.
    """

    def __init__(self, file: ArchiveFile, objectives: Objectives, settings: SearchSettings) -> None:
        self.file = file
        self.objectives = objectives
        self.settings = settings
        self._first: list[Evaluation] | None = None
        self._merged: dict[int, list[Evaluation]] = {}

    @cached_property
    def directions(self) -> Floats:
        """Reference directions of the inner search and of survival."""
        return reference_directions(len(self.objectives), self.settings.population)

    def archive(self, version: int) -> list[Evaluation]:
        """The archive that a version of the weights begins with, oldest first.

        Raises:
            UserError: the file lacks a round before.
        """
        if version > 0 and not self.settings.judges_again:
            return self.merged(version - 1)
        if version == 0 and self.settings.preprocessing_factor > 1:
            if self._first is None:
                self._first = self._preprocessed()
            return self._first
        judged = self._with_role(version, "archive")
        if version == 0 or self.settings.halving_images is not None:
            return judged  # what halving learns from was always judged first
        age = self._ages(version)
        return sorted(judged, key=lambda e: age.get(e.architecture, len(age)))

    def _ages(self, version: int) -> dict[Architecture, int]:
        """A number for each architecture that an archive before ``version`` may have held, oldest first."""
        earlier = [e for e in self.file.evaluations if e.version < version and e.role == "candidate"]
        return {e.architecture: number for number, e in enumerate([*self.archive(0), *earlier])}

    def merged(self, version: int) -> list[Evaluation]:
        """The archive after the round's candidates.

        Raises:
            UserError: the file lacks a round before.
        """
        if not self.settings.judges_again:  # one by one: each asks for the one before it
            for earlier in range(len(self._merged), version):
                self.merged(earlier)
        if version not in self._merged:
            archive = self.archive(version)
            if not archive:
                raise UserError(
                    f"run {self.file.path.parent} lost round {version} of its archive; start a new run"
                )
            self._merged[version] = UPDATES[self.settings.update]().merge(
                archive,
                self._with_role(version, "candidate"),
                self.objectives,
                size=self.settings.archive_size,
                seed=self.settings.seed + version,
                directions=self.directions,
            )
        return self._merged[version]

    def seen(self, version: int) -> list[Evaluation]:
        """The archive of a version, and those of its candidates that are judged so far."""
        return [*self.archive(version), *self._with_role(version, "candidate")]

    def found(self, version: int, proposed: Sequence[Architecture]) -> list[Evaluation]:
        """What was found of candidates, and what they passed, in the order of the file."""
        names = {a.id for a in proposed}
        return [
            e
            for e in self.file.of_version(version)
            if e.role == "candidate" and (e.passed_by or e.architecture.id) in names
        ]

    def others(self, version: int) -> list[Evaluation]:
        """What the surrogate learns from beside the archive, the last evaluation of each architecture.

        Judged with weights of the archive before a version's candidates: those that were judged on a part of
        the images, and where it learns from everything those that did not survive.
        """
        if self.settings.judges_again:
            known = [e for e in self.file.of_version(version) if e.role != "candidate"]
        else:
            known = [e for e in self.file.evaluations if e.version < version]
        if self.settings.surrogate_learns == "archive":
            known = [e for e in known if e.images is not None]
        inside = {e.architecture for e in self.archive(version)}
        return [e for e in {e.architecture: e for e in known}.values() if e.architecture not in inside]

    def _preprocessed(self) -> list[Evaluation]:
        """The best of the first draws by survival (NAT2), the smallest and the largest in any case."""
        drawn = self._with_role(0, "drawn")
        always = set(smallest_and_largest(self.objectives.encoding))
        extremes = [e for e in drawn if e.architecture in always]
        others = [e for e in drawn if e.architecture not in always]
        room = self.settings.first_size - len(extremes)
        seed = self.settings.seed
        return extremes + best(others, self.objectives, room, seed=seed, directions=self.directions)

    def _with_role(self, version: int, role: str) -> list[Evaluation]:
        """Those judged on all validation images."""
        return [e for e in self.file.of_version(version) if e.role == role and e.images is None]
