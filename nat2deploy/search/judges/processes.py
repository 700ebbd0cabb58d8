"""Judging in several processes of this machine, which share one copy of weights and images."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.files import TEMPORARY
from nat2deploy.search.judges.base import RETRIES, Job, Judge, Judged, Weights
from nat2deploy.search.judges.images import save_images
from nat2deploy.training.evaluation import Accuracy

_log = logging.getLogger(__name__)
_AHEAD = 4
"""Jobs a worker that may be done before the next one in order is; a killed search judges them again."""
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class LocalProcesses(Judge):
    """``count`` workers, started by the first batch; one that ends is replaced, and its job done again.

    The images are written to ``folder`` for as long as the workers live. Each worker uses one thread.
    """

    def __init__(self, count: int, data: ImageData, options: Mapping[str, Any], folder: Path) -> None:
        self.count = count
        self.data = data
        self.options = dict(options)
        self.images = folder / f".images{TEMPORARY}"
        self._workers: list[_Worker] = []
        self._answers: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._issued = 0

    def judge(self, weights: Weights, jobs: Sequence[Job]) -> Generator[Judged]:
        """Yield what is found of the jobs in their order."""
        batch = _Batch(jobs, self._issued)
        self._issued += len(jobs)
        for place in range(len(jobs)):
            while place not in batch.done:
                self._hand_out(batch, weights, place)
                self._take(batch)
            yield batch.done.pop(place)

    def close(self) -> None:
        """End the workers, also in the middle of their jobs, and remove the images."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self.images.unlink(missing_ok=True)

    def _hand_out(self, batch: _Batch, weights: Weights, place: int) -> None:
        while len(self._workers) < min(self.count, len(batch.jobs)):
            if not self._workers:
                save_images(self.data, self.images)
            self._workers.append(_Worker.start(self._answers, self.images, self.options))
        for worker in self._workers:
            if not worker.idle or not batch.waiting or batch.waiting[0] > place + _AHEAD * self.count:
                continue
            if worker.version != weights.version:
                worker.send({"weights": str(weights.path)})
                worker.version = weights.version
            number = batch.waiting.popleft()
            job = batch.jobs[number]
            worker.send(
                {
                    "job": batch.first + number,
                    "architecture": job.architecture.to_json(),
                    "gates": job.gates,
                    "passed": [one.to_json() for one in job.passed],
                }
            )
            worker.job = batch.first + number

    def _take(self, batch: _Batch) -> None:
        """Wait for one answer, or for a worker's end."""
        worker, answer = self._answers.get()
        if worker not in self._workers:
            return
        if answer is None:
            self._workers.remove(worker)
            batch.lost(worker.job, worker.how_it_ended())
            return
        number = answer["job"]
        worker.job = None
        if "error" in answer:
            worker.version = None  # whether it holds the weights is not known
        if number < batch.first:
            return  # a batch that was left in the middle has answers, and errors, yet to come
        if "error" in answer:
            raise UserError(f"a worker process could not judge: {answer['error']}")
        passed = tuple(Accuracy(**one) for one in answer["passed"])
        batch.done[number - batch.first] = Judged(Accuracy(**answer["accuracy"]), passed)


class _Batch:
    """The jobs of one call: those that wait, those that are done, and how often each one's worker ended."""

    def __init__(self, jobs: Sequence[Job], first: int) -> None:
        self.jobs = jobs
        self.first = first
        self.waiting = deque(range(len(jobs)))
        self.done: dict[int, Judged] = {}
        self._ends: Counter[int] = Counter()

    def lost(self, job: int | None, how: str) -> None:
        """Put a job whose worker ended back to the front.

        Raises:
            UserError: that happened to it too often.
        """
        number = -1 if job is None or job < self.first else job - self.first
        self._ends[number] += 1
        name = "nothing of this batch" if number < 0 else self.jobs[number].architecture.id
        if self._ends[number] > RETRIES:
            raise UserError(
                f"{self._ends[number]} worker processes ended one after the other while judging {name} "
                f"({how}); if memory is short use fewer workers, else see what one says with workers 1"
            )
        _log.warning("a worker process ended (%s) while judging %s; another one does it again", how, name)
        if number >= 0:
            self.waiting.appendleft(number)


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """A context in which processes are started that Ctrl-C, which reaches them too, does not end.

    Their parent does. What comes meanwhile is only put off for this process.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(eq=False)
class _Worker:
    """A process, the version of the weights that it holds, and the job that it is at."""

    process: subprocess.Popen[str]
    version: int | None = None
    job: int | None = None

    @classmethod
    def start(
        cls,
        answers: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]],
        images: Path,
        options: Mapping[str, Any],
    ) -> _Worker:
        """Start the process, and a thread that puts its answers into the queue, None when it ends."""
        # Whoever started this process may have found the package in another way than by its environment.
        package = str(Path(__file__).parents[3])
        inherited = os.environ.get("PYTHONPATH")
        paths = package if not inherited else os.pathsep.join([package, inherited])
        try:
            with without_ctrl_c():
                process = subprocess.Popen(
                    # Not what lies in the working folder, whatever it is called.
                    [sys.executable, "-P", "-m", "nat2deploy.search.judges.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    env={**os.environ, **_THREADS, "PYTHONPATH": paths},
                )
        except OSError as error:
            raise UserError(f"no worker process can be started ({error}); use fewer workers") from error
        worker = cls(process)

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.endswith("\n"):  # else it was killed while it wrote
                    answers.put((worker, json.loads(line)))
            answers.put((worker, None))

        threading.Thread(target=read, daemon=True).start()
        worker.send({"images": str(images), "options": dict(options)})
        return worker

    @property
    def idle(self) -> bool:
        """Whether it waits for a job."""
        return self.job is None

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a line to the process; that one has ended is found by what it answers."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except OSError:
            return

    def how_it_ended(self) -> str:
        """The exit status, in words."""
        code = self.process.wait()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Kill the process, which has nothing to lose."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except OSError:
                return
