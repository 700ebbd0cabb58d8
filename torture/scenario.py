"""What a scenario is given, and what it found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torture.commands import Ended, faults_of_refusal, run
from torture.results import differences, half_written, leftovers, result_of


@dataclass
class Found:
    """Counts of one scenario, and everything that was not as it must be."""

    name: str
    faults: int = 0
    """That were injected and struck."""
    runs: int = 0
    """Pipelines that were brought to their end."""
    problems: list[str] = field(default_factory=list)
    skipped: str = ""
    notes: list[str] = field(default_factory=list)
    """The lines of error that a user saw, each once."""


@dataclass(frozen=True)
class Bench:
    """A pipeline's config, what it makes when nothing happens, and how long that takes."""

    folder: Path
    config: Path
    undisturbed: dict[str, str]
    whole_s: float
    seed: int

    def words(self, out: Path, *, workers: int = 1) -> tuple[str, ...]:
        """The pipeline's command."""
        return ("run", str(self.config), "--out", str(out), "--workers", str(workers))

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """A folder for a run, which goes away."""
        place = self.folder / name
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def check_refusal(self, ended: Ended, out: Path, found: Found) -> None:
        """Look at a command that had to give up, and at what it left."""
        found.faults += 1
        found.problems += faults_of_refusal(ended)
        if out.exists():
            found.problems += [*half_written(out), *leftovers(out, finished=False)]
        line = ended.error.replace(str(self.folder), "…")
        if line not in found.notes:
            found.notes.append(line)

    def check_end(self, ended: Ended, out: Path, found: Found) -> None:
        """Look at a command that had to finish, and compare its result."""
        found.runs += 1
        if ended.code != 0:
            found.problems.append(f"did not finish: exit code {ended.code}: {ended.error}")
            return
        found.problems += differences(result_of(out), self.undisturbed)
        found.problems += [*half_written(out), *leftovers(out, finished=True)]

    def go_on(self, out: Path, found: Found) -> None:
        """Run the same command with no fault, to the end."""
        self.check_end(run(*self.words(out)), out, found)
