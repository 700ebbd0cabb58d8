"""What measures: one small interface, and the machine that this process runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from nat2deploy.errors import UserError
from nat2deploy.gpu import busy_warning, clock_at_work, gpu_memory_bytes
from nat2deploy.machine import memory_bytes
from nat2deploy.measure.clock import Run
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.groups import Group
from nat2deploy.measure.interleave import Measurement, Progress
from nat2deploy.measure.pinning import load_warning
from nat2deploy.measure.prepared import prepare_and_measure
from nat2deploy.measure.workloads import prepare_candidate, reference_workload
from nat2deploy.target import Fingerprint, Target, fingerprint


class Device(ABC):
    """A machine that measures groups of candidates for one target.

    The public method checks; a device writes ``_measure``.

    Attributes:
        measures_now: False where everything was measured before, and no limit can be raised any more.
    """

    measures_now: ClassVar[bool] = True

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Describe the machine.

        Raises:
            UserError: it cannot be reached or cannot measure.
        """

    def warning(self) -> str | None:
        """Return a line of warning when the machine is busy, else None."""
        return None

    def memory_bytes(self) -> int | None:
        """Return the machine's memory, None where it is not known."""
        return None

    def measure(self, group: Group, progress: Progress) -> Measurement:
        """Measure a group's candidates interleaved, beside the reference workload.

        Args:
            group: at least one candidate.
            progress: told the share done and a line of text.

        Raises:
            UserError: a candidate that does not compile, a target that the machine cannot hold, or a
                measurement of something else.
        """
        found = self._measure(group, progress)
        if list(found.summaries) != list(group.candidates) or found.reference_ms is None:
            raise UserError(f"{group.name}: what was measured is not what was asked for; profile again")
        return found

    @abstractmethod
    def _measure(self, group: Group, progress: Progress) -> Measurement:
        """Measure, with a reference workload, summaries in the order of the candidates."""

    def finish(self, profile: str | None = None) -> None:  # noqa: B027 - most devices keep nothing
        """Forget what was kept for the sake of resuming: the profile is done.

        Args:
            profile: as of its groups; by default that of the group measured last.
        """


class LocalDevice(Device):
    """The machine that this process runs on.

    Args:
        target: what candidates are compiled for.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._reference: Run | None = None

    def fingerprint(self) -> Fingerprint:
        """Describe this machine."""
        return fingerprint(self.target.device)

    def warning(self) -> str | None:
        """Return a line of warning when this machine is busy, else None."""
        if self.target.kind == "cuda":
            return load_warning() or busy_warning(self.target.gpu_index)
        return load_warning()

    def memory_bytes(self) -> int | None:
        """Return this machine's memory, or that of the target's GPU."""
        return gpu_memory_bytes(self.target.gpu_index) if self.target.kind == "cuda" else memory_bytes()

    def _measure(self, group: Group, progress: Progress) -> Measurement:
        # Within, because with PyTorch's own threads exporting took six times as long beside other load.
        with pinned_threads(self.target):
            if self._reference is None:
                self._reference = reference_workload(self.target)
            found = prepare_and_measure(
                group.name,
                {
                    name: partial(prepare_candidate, candidate, self.target)
                    for name, candidate in group.candidates.items()
                },
                self._reference,
                seed=group.seed,
                precision=group.precision,
                time_limit_s=group.time_limit_s,
                progress=progress,
                energy_share=group.energy_share,
                warmup_ms=group.warmup_ms,
                device=self.target.device,
            )
            if self.target.kind == "cuda":
                *before, after = found.clocks
                found = replace(found, clocks=(*before, {**after, **self._gpu_at_work(self._reference)}))
            return found

    def _gpu_at_work(self, work: Run) -> dict[str, Any]:
        """Ask for the GPU's clock, and keep the GPU at work until the answer is there."""
        with ThreadPoolExecutor(1) as asking:
            answer = asking.submit(clock_at_work, self.target.gpu_index)
            while not answer.done():
                work()
        return answer.result()
