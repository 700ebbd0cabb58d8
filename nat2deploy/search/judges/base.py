"""What judges architectures, wherever the work is done, and one job of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from nat2deploy.data.sets import ImageData, Split
from nat2deploy.errors import UserError, out_of_memory
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.architecture import Architecture
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.evaluation import Accuracy, SubNetworkEvaluator

RETRIES = 3
"""How often a job is given out again after what judged it ended."""


@dataclass(frozen=True)
class Job:
    """An architecture to be judged.

    ``gates`` are pairs (images, right), ascending: after so many validation images, in a random order, it is
    judged on only if at least so many were right. Without any it is judged on all of them at once.
    ``passed`` are sub-networks that end at exits which it passes (``SearchSpace.passed``), judged with it. It
    is in 32-bit floats then.
    """

    architecture: Architecture
    gates: tuple[tuple[int, int], ...] = ()
    passed: tuple[Architecture, ...] = ()


@dataclass(frozen=True)
class Judged:
    """What was found of a job: its architecture's accuracy, and of those that it passed.

    Of those none where the architecture was given up before it had seen all images.
    """

    accuracy: Accuracy
    passed: tuple[Accuracy, ...] = ()


class Weights(Protocol):
    """A version of a super-network, in memory and in a file."""

    @property
    def path(self) -> Path:
        """The file, replaced whole by each new version."""

    @property
    def version(self) -> int:
        """Another number for other weights."""

    @property
    def supernet(self) -> AnySuperNetwork:
        """The same weights in memory, in evaluation mode."""


class Judge(ABC):
    """Judges batches of architectures with inherited weights.

    A job's accuracy depends on the weights, the data and the options alone: not on which judge it is, nor on
    how many processes there are, for each network is judged by one thread.
    """

    @abstractmethod
    def judge(self, weights: Weights, jobs: Sequence[Job]) -> Generator[Judged]:
        """Yield what is found of the jobs in their order, each once it and those before it are known.

        A caller that stops in the middle may ask for another batch.

        Raises:
            UserError: a job that cannot be done, or that nobody survived.
        """

    @property
    def adapter(self) -> Callable[..., None] | None:
        """What is to adapt super-networks in place of ``training.supernet.adapt``, where there is such."""
        return None

    def close(self) -> None:
        """End what was started; nothing is judged afterwards."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JobRunner:
    """Does one job at a time, in this process and thread."""

    def __init__(self, evaluator: SubNetworkEvaluator) -> None:
        self.evaluator = evaluator

    def __call__(self, supernet: AnySuperNetwork, job: Job) -> Judged:
        """Judge a job's architecture; ``images`` of the answer says after how many it was decided."""
        with one_thread():
            if not job.gates and not job.passed:
                return Judged(self.evaluator(supernet, job.architecture))
            return self._gated(supernet, job)

    @cached_property
    def _shuffled(self) -> Split:
        """The validation images in an order that says nothing of them."""
        return self.evaluator.validation.subset(len(self.evaluator.validation), self.evaluator.seed)

    def _gated(self, supernet: AnySuperNetwork, job: Job) -> Judged:
        looks = (*job.gates, (len(self._shuffled), 0))
        found: list[Accuracy] = []
        for found, (_, least) in zip(self._looks(supernet, job), looks, strict=True):
            if round(found[0].top1 * found[0].images) < least:
                return Judged(found[0])
        return Judged(found[0], tuple(found[1:]))

    def _looks(self, supernet: AnySuperNetwork, job: Job) -> Iterator[list[Accuracy]]:
        """What is found of a job's architectures after the images of each gate, and after all."""
        parts: Iterable[Split] = [self.evaluator.validation]
        if job.gates:
            ends = (0, *(until for until, _ in job.gates), len(self._shuffled))
            parts = (self._shuffled.take(torch.arange(*part)) for part in pairwise(ends))
        if job.passed:
            return self.evaluator.passing(supernet, job.architecture, job.passed, parts)
        network = self.evaluator.network(supernet, job.architecture)
        return ([found] for found in self.evaluator.looks(network, job.architecture, parts))


class InProcess(Judge):
    """Judges one after the other, here."""

    def __init__(self, evaluator: SubNetworkEvaluator) -> None:
        self.evaluator = evaluator

    def judge(self, weights: Weights, jobs: Sequence[Job]) -> Generator[Judged]:
        """Yield what is found of the jobs in their order."""
        run = JobRunner(self.evaluator)
        for job in jobs:
            try:
                judged = run(weights.supernet, job)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                raise UserError(
                    f"memory ran out while judging {job.architecture.id}; the same command goes on where it "
                    "was, once there is more"
                ) from error
            yield judged


def evaluator_options(settings: SearchSettings, symmetric_int8: Sequence[bool] = (False,)) -> dict[str, Any]:
    """What a search's settings and its targets' forms of int8 say of judging.

    Arguments of ``SubNetworkEvaluator``, fit for JSON.
    """
    return {
        "seed": settings.seed,
        "recalibration_images": settings.recalibration_images,
        "validation_images": settings.validation_images,
        "symmetric_int8": list(symmetric_int8),
    }


def in_process(data: ImageData, options: Mapping[str, Any]) -> InProcess:
    """Return the judge that needs nothing else."""
    return InProcess(SubNetworkEvaluator(data, **options))


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, PyTorch computes in one thread: sums of several come out different in the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
