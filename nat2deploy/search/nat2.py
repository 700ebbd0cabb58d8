"""The NAT2 loop: archive, surrogate, evolution, evaluation, adaptation, re-evaluation.

Lu et al., "Neural Architecture Transfer" (2021), with the policies of Sarti et al., NAT2 (2023): an
archive of constant size, replaced by survival, and re-evaluated whole after each adaptation. Each policy is
chosen by name in the settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.files import write_json
from nat2deploy.search.archive import ArchiveFile, Evaluation, Role
from nat2deploy.search.balance import candidates_of
from nat2deploy.search.costs import Objectives
from nat2deploy.search.distribution import DISTRIBUTIONS
from nat2deploy.search.halving import Halving
from nat2deploy.search.history import read_history
from nat2deploy.search.hypervolume import HypervolumeMeter
from nat2deploy.search.initialisation import INITIALISATIONS
from nat2deploy.search.judges.base import Job, Judge, Judged, evaluator_options, in_process
from nat2deploy.search.passed_exits import with_passed
from nat2deploy.search.proposal import Batch, fit, propose
from nat2deploy.search.rounds import Rounds
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.update import best, feasible_front, from_its_ends, objective_matrix
from nat2deploy.search.warm_start import Known, WarmStart
from nat2deploy.search.weights import SearchWeights
from nat2deploy.space.architecture import Architecture
from nat2deploy.training.evaluation import Accuracy

_NO_LOSS = 1e9  # of a network that gives no finite one
_FEW = 3


@dataclass(frozen=True)
class Status:
    """Where a search is, for progress displays.

    ``round`` is the last one that was begun, ``version`` that of the weights.
    """

    stage: str
    round: int
    rounds: int
    done: int
    total: int
    version: int = 0
    evaluations: int = 0
    best: Evaluation | None = None
    hypervolume: float | None = None
    tau: float | None = None
    surrogate: str | None = None


Listener = Callable[[Status], None]


class Nat2Search:
    """One search in a run directory: ``archive.jsonl``, ``supernet.safetensors``, ``history.json``.

    Everything but the evaluations follows from them and the seed, so a killed search goes on where it
    was and ends with the same archive as an undisturbed one. The first archive holds the architectures of
    ``start``, which are judged unless their accuracy is known. Who judges makes no difference to the result;
    without a ``judge`` this process does.
    """

    def __init__(
        self,
        objectives: Objectives,
        weights: SearchWeights,
        data: ImageData,
        settings: SearchSettings,
        folder: Path,
        listener: Listener | None = None,
        start: WarmStart | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.objectives = objectives
        self.encoding = objectives.encoding
        self.weights = weights
        self.settings = settings
        self.candidates = candidates_of(settings, data)
        self.listener = listener
        self.start: WarmStart = start or {}
        self._version = 0
        self.file = ArchiveFile(folder / "archive.jsonl", self.encoding.space)
        self.file.look_up(objectives.costs_of)
        self.rounds = Rounds(self.file, objectives, settings)
        self.history_path = folder / "history.json"
        self.history = read_history(self.history_path)
        self._shown: tuple[tuple[int, int], Evaluation | None] = ((0, 0), None)
        images = min(len(data.validation), settings.validation_images or len(data.validation))
        self.images = images
        self.halving = (
            None
            if settings.halving_images is None
            else Halving(objectives, images, settings.halving_images, settings.halving_risk)
        )
        self.judge = judge or in_process(data, evaluator_options(settings))

    def run(self) -> list[Evaluation]:
        """Search to the end and return the last archive, evaluated with the last weights.

        Raises:
            UserError: a budget that no architecture keeps, or files of the run that cannot be read.
        """
        self.objectives.check_reachable()
        self.weights.prepare(self._training)
        while True:
            version = self._version = self.weights.version
            judged = self._judge(version)
            self._record(version, judged)
            if version >= self.settings.rounds:
                self.weights.clear()
                return judged
            self._explore(judged, version)
            self._adapt(self.rounds.merged(version), version)

    def front(self) -> list[Evaluation]:
        """The feasible non-dominated evaluations, cheapest first.

        Usable at any moment, also of a search that was stopped: of the archive with the present weights, or
        of what is judged of it so far; before the last front is, of the archive before.
        """
        part = self._part
        return feasible_front(part, self.objectives) if part else self._front_of(self._whole)

    @property
    def unsure(self) -> str:
        """What is to be known of the front of a stopped search; nothing where its archive is whole."""
        if self._part:
            return "it is of that part of the archive which was judged before the search was stopped"
        adapted = self._whole is not None and self._whole < self.weights.version
        if adapted and self.settings.judges_again:
            return "its accuracies are those before the last adaptation of the weights"
        return ""

    @property
    def _part(self) -> list[Evaluation]:
        """What is judged so far of an archive that is not whole, the last front among it."""
        if not self.weights.path.exists() or self.weights.version == self._whole:
            return []
        part = [e for e in self.file.of_version(self.weights.version) if e.images is None]
        last = {e.architecture for e in self._front_of(self._whole)}
        return part if last <= {e.architecture for e in part} else []

    @property
    def _whole(self) -> int | None:
        """The last version whose archive was judged to the end."""
        whole = [int(entry["round"]) for entry in self.history if "hypervolume" in entry]
        return max(whole, default=None)

    def _front_of(self, version: int | None) -> list[Evaluation]:
        return [] if version is None else feasible_front(self.rounds.seen(version), self.objectives)

    def _judge(self, version: int) -> list[Evaluation]:
        """The archive that a version of the weights begins with, judged as the settings say."""
        settings = self.settings
        if version == 0:
            initialisation = INITIALISATIONS[settings.initialisation](settings.repair)
            rng = np.random.default_rng([settings.seed, 0])
            factor = settings.preprocessing_factor
            drawn = initialisation.draw(self.objectives, rng, factor * settings.first_size, self.start)
            self._evaluate(drawn, version, "archive" if factor == 1 else "drawn")
        elif settings.judges_again:
            merged = self.rounds.merged(version - 1)
            # The last front first: it is the best of what a search that is stopped here can give, at all
            # costs alike, and with new weights, too, it is likely to dominate many of the others.
            front = from_its_ends([e.architecture for e in feasible_front(merged, self.objectives)])
            others = [e.architecture for e in merged if e.architecture not in front]
            everyone = [*front, *others]
            if self.halving is None:
                self._evaluate(everyone, version, "archive")
            else:
                self._evaluate(front, version, "archive", of=(0, len(everyone)))
                rivals = [e for a in front if (e := self.file.find(a, version)) is not None]
                self._evaluate(others, version, "archive", rivals, of=(len(front), len(everyone)))
        return self.rounds.archive(version)

    def _evaluate(
        self,
        architectures: list[Architecture],
        version: int,
        role: Role,
        rivals: list[Evaluation] | None = None,
        of: tuple[int, int] | None = None,
    ) -> None:
        """Judge those of no evaluation yet; what ``rivals`` dominate may be dropped by halving.

        ``of``: where they begin in how many, for displays.
        """
        before, total = of or (0, len(architectures))
        missing = [a for a in dict.fromkeys(architectures) if self.file.find(a, version) is None]
        unknown = [a for a in missing if self._known(a, version) is None]
        if rivals is None or self.halving is None:
            jobs = [Job(a) for a in unknown]
        else:
            jobs = self.halving.jobs(unknown, rivals)
        if self.settings.passed_exits:
            jobs = with_passed(jobs, self.encoding.space)
        job_of = {job.architecture: job for job in jobs}
        with closing(self.judge.judge(self.weights, jobs)) as judged:
            for done, architecture in enumerate(architectures, start=before + 1):
                if (job := job_of.pop(architecture, None)) is not None:
                    self._append_judged(job, next(judged), version, role)
                elif self.file.find(architecture, version) is None:
                    known = self._known(architecture, version)
                    if known is not None:  # else one of the others passes it
                        self._append(architecture, version, role, known)
                self._tell("evaluate" if role == "candidate" else "archive", done, total)

    def _append_judged(self, job: Job, judged: Judged, version: int, role: Role) -> None:
        """Write what a job found, the network itself last: a search killed before judges it again."""
        for architecture, accuracy in zip(job.passed, judged.passed, strict=False):
            if self.file.find(architecture, version) is None:
                self._append(architecture, version, role, accuracy, passed_by=job.architecture.id)
        if self.file.find(job.architecture, version) is None:
            self._append(job.architecture, version, role, judged.accuracy)

    def _known(self, architecture: Architecture, version: int) -> Known | None:
        """An accuracy that holds for a version: an earlier run's, or one of before with weights that stay."""
        if version == 0:
            return self.start.get(architecture)
        if self.settings.adapt_epochs > 0:
            return None
        earlier = self.file.last(architecture)
        return None if earlier is None else Known(earlier.values["top1"], earlier.loss)

    def _append(
        self,
        architecture: Architecture,
        version: int,
        role: Role,
        accuracy: Accuracy | Known,
        passed_by: str | None = None,
    ) -> None:
        top1, loss = accuracy.top1, accuracy.loss
        if not math.isfinite(loss):
            self._check_some_loss(architecture, version)
            top1, loss = 0.0, _NO_LOSS
        values = self.objectives.values(architecture, top1)
        images = accuracy.images if isinstance(accuracy, Accuracy) else self.images
        part = images if images < self.images else None
        earlier = isinstance(accuracy, Known)
        self.file.append(Evaluation(architecture, version, role, loss, values, part, passed_by, earlier))

    def _check_some_loss(self, architecture: Architecture, version: int) -> None:
        """Refuse weights with which nothing has a finite loss: one network without is the worst, no more."""
        before = self.file.of_version(version)
        if len(before) >= _FEW and all(e.loss == _NO_LOSS for e in before):
            way = "adapt with a lower rate in a new run" if version else "give another super-network"
            raise UserError(
                f"architecture {architecture.id} gives no finite loss, nor do those judged before it; {way}"
            )

    def _explore(self, archive: list[Evaluation], version: int) -> None:
        """Judge this round's candidates; the surrogate learns from each batch of them."""
        settings = self.settings
        size = settings.batch_candidates or self.candidates
        batches = range(0, self.candidates, size)
        earlier = self.rounds.others(version)
        drawn = [e.architecture for e in self.file.of_version(version) if e.role != "candidate"]
        proposed: list[Architecture] = []
        for number, first in enumerate(batches):
            batch = Batch(version, number, min(size, self.candidates - first))
            found = self.rounds.found(version, proposed)
            whole = [*archive, *(e for e in found if e.images is None)]
            others = [*earlier, *(e for e in found if e.images is not None)]
            self._tell("surrogate", number, len(batches))
            surrogate = fit([*whole, *others], self.objectives, settings, batch)
            self._note(version, surrogate=surrogate.name, tau=surrogate.tau)
            self._tell("surrogate", number + 1, len(batches))
            self._tell("evolve", number, len(batches))
            known = [*(e.architecture for e in (*whole, *others)), *drawn]
            chosen = propose(
                surrogate, whole, known, self.objectives, settings, batch, self.rounds.directions
            )
            self._tell("evolve", number + 1, len(batches))
            proposed += chosen
            self._evaluate(chosen, version, "candidate", whole, of=(first, self.candidates))

    def _adapt(self, merged: list[Evaluation], version: int) -> None:
        """Adapt the weights to the distribution of the archive's best, and make that the next version."""
        settings = self.settings
        top = best(
            merged,
            self.objectives,
            settings.top,
            seed=settings.seed + version,
            directions=self.rounds.directions,
        )
        genes = self.encoding.encode_all([e.architecture for e in top])
        if settings.distribution != "categorical":
            self._tell("distribution", 0, 1)  # seconds a gene
        distribution = DISTRIBUTIONS[settings.distribution](self.encoding, genes)
        if settings.distribution != "categorical":
            self._tell("distribution", 1, 1)

        def sample(step: int) -> list[Architecture]:
            rng = np.random.default_rng([settings.seed, version, step, 2])
            return distribution.sample(rng, settings.adapt_subnets, settings.repair)

        self.weights.adapt(sample, self._training)

    def _training(self, stage: str, done: int, total: int) -> None:
        self._tell(stage, done, total)

    def _record(self, version: int, judged: list[Evaluation]) -> None:
        """Write the round's hypervolume and best network to the history."""
        meter = HypervolumeMeter(objective_matrix(self.rounds.archive(0), self.objectives))
        front = feasible_front(judged, self.objectives)
        top = best_of(front)
        # A resumed round's candidates may be in the file already.
        done = (e for e in self.file.evaluations if e.version < version or e.role != "candidate")
        self._note(
            version,
            evaluations=sum(e.is_work for e in done),
            hypervolume=meter(objective_matrix(front, self.objectives)),
            best=None if top is None else {"id": top.architecture.id, **top.values},
        )
        self._tell("round", version, self.settings.rounds)

    def _note(self, version: int, **fields: Any) -> None:
        while len(self.history) <= version:
            self.history.append({"round": len(self.history)})
        self.history[version].update(fields)
        write_json(self.history_path, self.history)

    def _best(self) -> Evaluation | None:
        """The front's most accurate, found anew only once something was judged or a round recorded."""
        held = len(self.file.evaluations), sum("hypervolume" in entry for entry in self.history)
        if self._shown[0] != held:
            self._shown = held, best_of(self._front_of(self._whole))
        return self._shown[1]

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self.listener is None:
            return
        last = self.history[-1] if self.history else {}
        tau: dict[str, Any] = next((h for h in reversed(self.history) if "tau" in h), {})
        hypervolume = next((h["hypervolume"] for h in reversed(self.history) if "hypervolume" in h), None)
        self.listener(
            Status(
                stage,
                int(last.get("round", 0)),
                self.settings.rounds,
                done,
                total,
                self._version,
                self.file.judged,
                self._best(),
                hypervolume,
                tau.get("tau"),
                tau.get("surrogate"),
            )
        )


def best_of(evaluations: list[Evaluation]) -> Evaluation | None:
    """The most accurate evaluation; ties go to the lower loss."""
    return max(evaluations, key=lambda e: (e.values["top1"], -e.loss), default=None)
