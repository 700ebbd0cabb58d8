"""The archive: every evaluated architecture, one JSON line each, appended and never rewritten."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from nat2deploy.errors import UserError
from nat2deploy.files import cannot_write
from nat2deploy.search.budget import format_cost
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace

Role = Literal["archive", "candidate", "drawn"]
"""``drawn``: one of those that the first archive was chosen from."""


@dataclass(frozen=True)
class Evaluation:
    """One architecture judged with one version of the super-network's weights.

    ``values`` holds ``top1`` and every cost by metric (``latency_ms``, ``macs``, ``size_mb@pi5``, ...).
    ``images`` is given where it was dropped after so many validation images: surrogates may learn from such
    an accuracy, but it is not compared with others, and no archive or front holds it. ``passed_by`` is given
    where it was not judged by itself: the id of the network that passes the exit which it ends at.
    ``taken_over`` is one whose accuracy was known: an earlier run's, or one of the same weights.
    """

    architecture: Architecture
    version: int
    role: Role
    loss: float
    values: dict[str, float]
    images: int | None = None
    passed_by: str | None = None
    taken_over: bool = False

    @property
    def is_work(self) -> bool:
        """Whether it was judged, by itself and in this run: no other counts as an evaluation."""
        return self.passed_by is None and not self.taken_over

    @property
    def error(self) -> float:
        """1 − top-1 accuracy on the validation split."""
        return 1.0 - self.values["top1"]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    version: int
    role: Role
    loss: float
    values: dict[str, float]
    architecture: dict[str, object]
    images: int | None = None
    passed_by: str | None = None
    taken_over: Literal[True] | None = None


class ArchiveFile:
    """``archive.jsonl`` of a run. A line that a killed process left unfinished is dropped on reading.

    ``judged`` counts the evaluations that were work: those that others passed, or an earlier run judged, cost
    nothing more.
    """

    def __init__(self, path: Path, space: SearchSpace) -> None:
        self.path = path
        self.space = space
        self.evaluations = self._read()
        self.judged = sum(e.is_work for e in self.evaluations)
        self._index()

    def _index(self) -> None:
        self._known = {(e.architecture, e.version): e for e in self.evaluations}
        self._last = {e.architecture: e for e in self.evaluations if e.images is None}

    def find(self, architecture: Architecture, version: int) -> Evaluation | None:
        """The finished evaluation of an architecture with a version of the weights, if there is one."""
        return self._known.get((architecture, version))

    def last(self, architecture: Architecture) -> Evaluation | None:
        """The last evaluation of an architecture on all images, with whatever version of the weights."""
        return self._last.get(architecture)

    def of_version(self, version: int) -> list[Evaluation]:
        """All evaluations with a version of the weights, oldest first."""
        return [e for e in self.evaluations if e.version == version]

    def look_up(self, costs: Callable[[list[Architecture]], list[dict[str, float]]]) -> None:
        """Look up all costs: those that the file lacks, as one of an older version may, are added in memory.

        Raises:
            UserError: a latency or an energy is not what the file says: it is of another table, and beside
                those of this one it would be compared, and kept within budgets, in vain.
        """
        found = costs([e.architecture for e in self.evaluations])
        for evaluation, values in zip(self.evaluations, found, strict=True):
            for metric in sorted(values.keys() & evaluation.values.keys()):
                before, now = evaluation.values[metric], values[metric]
                if metric.startswith(("latency", "energy")) and not math.isclose(before, now, rel_tol=1e-6):
                    raise UserError(
                        f"run {self.path.parent} was begun with another latency table: {metric} of network "
                        f"{evaluation.architecture.id} was {format_cost(metric, before)}, now it is "
                        f"{format_cost(metric, now)}; put that table back, or search anew with another "
                        f"--out (--from {self.path.parent} takes its networks over)"
                    )
        if any(v.keys() - e.values.keys() for e, v in zip(self.evaluations, found, strict=True)):
            self.evaluations = [
                replace(e, values={"top1": e.values["top1"], **values})
                for e, values in zip(self.evaluations, found, strict=True)
            ]
            self._index()

    def append(self, evaluation: Evaluation) -> None:
        """Add one finished evaluation; it is on disk when this returns.

        Raises:
            UserError: the file cannot be written; a part of a line is dropped when it is read again.
        """
        line = _Line(
            id=evaluation.architecture.id,
            version=evaluation.version,
            role=evaluation.role,
            loss=evaluation.loss,
            values=evaluation.values,
            architecture=dict(evaluation.architecture.to_json()),
            images=evaluation.images,
            passed_by=evaluation.passed_by,
            taken_over=evaluation.taken_over or None,
        )
        text = line.model_dump_json(exclude_none=True)
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.evaluations.append(evaluation)
        self.judged += evaluation.is_work
        self._known[evaluation.architecture, evaluation.version] = evaluation
        if evaluation.images is None:
            self._last[evaluation.architecture] = evaluation

    def _read(self) -> list[Evaluation]:
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # killed while writing its last line
            try:
                with self.path.open("r+b") as stream:
                    stream.truncate(whole)
            except OSError as error:
                raise cannot_write(self.path, error) from error
        return read_archive(self.path, self.space)


def read_archive(path: Path, space: SearchSpace) -> list[Evaluation]:
    """Return the finished evaluations of an archive, oldest first, and leave the file as it is.

    Raises:
        UserError: missing, or a line that cannot be read.
    """
    if not path.exists():
        raise UserError(f"no archive at {path}; a search writes one")
    data = path.read_bytes()
    evaluations = []
    for number, text in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            line = _Line.model_validate(json.loads(text))
            architecture = parse_architecture(space, dict(line.architecture))
        except (ValidationError, ValueError, RecursionError, UserError) as error:
            raise UserError(
                f"archive {path}, line {number} cannot be read; remove that line or start a new run"
            ) from error
        evaluations.append(
            Evaluation(
                architecture,
                line.version,
                line.role,
                line.loss,
                line.values,
                line.images,
                line.passed_by,
                line.taken_over is not None,
            )
        )
    return evaluations
