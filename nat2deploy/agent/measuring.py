"""Measure a job's groups one after the other with the package's own clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nat2deploy.agent.job import Job
from nat2deploy.engines.onnx_session import OnnxSession
from nat2deploy.engines.stage_chain import StageChain
from nat2deploy.machine import machine_facts
from nat2deploy.measure.clock import Run
from nat2deploy.measure.pinning import pinned_cores
from nat2deploy.measure.prepared import prepare_and_measure, random_input
from nat2deploy.measure.reference import REFERENCE_INPUT

Tell = Callable[[float, str], None]


def measure_job(folder: Path, tell: Tell, *, lock: Path) -> dict[str, Any]:
    """Measure the groups of the job in ``folder`` that are left, and return all results.

    Each finished group is on disk before the next begins, so a killed job goes on.

    Args:
        folder: the job's.
        tell: told the share done and a line of text.
        lock: a file by which jobs keep from measuring at the same time.

    Raises:
        UserError: a job that cannot be read, a model that does not load, or more threads than cores.
    """
    job = Job(folder)
    machine = machine_facts()
    wanted = job.fields["groups"]
    with _alone(lock, tell):
        groups = job.results(machine)
        if groups:
            tell(0.0, f"going on: {len(groups)} of {len(wanted)} groups were measured before")
        for index, group in enumerate(wanted):
            if group["name"] not in groups:
                start, end = index / len(wanted), (index + 1) / len(wanted)
                groups[group["name"]] = _measure(job, group, _part(tell, start, end))
                job.save(machine, groups)
        return job.save(machine, groups)


def _measure(job: Job, group: dict[str, Any], tell: Tell) -> dict[str, Any]:
    threads = job.fields["threads"]
    with pinned_cores(threads):
        reference = _session(job, job.fields["reference"])
        found = prepare_and_measure(
            group["name"],
            {one["name"]: partial(_prepare, job, one) for one in group["candidates"]},
            reference.prepare(np.full(reference.ends.input_shape, REFERENCE_INPUT, dtype=np.float32)),
            seed=group["seed"],
            precision=group["precision"],
            time_limit_s=group["time_limit_s"],
            progress=tell,
            energy_share=group.get("energy_share", 0.0),
            warmup_ms=group.get("warmup_ms", 0.0),
        )
    return dataclasses.asdict(found)


def _prepare(job: Job, candidate: dict[str, Any], rng: np.random.Generator) -> Run:
    if "stages" in candidate:
        chain = StageChain(
            [job.model(digest) for digest in candidate["stages"]],
            candidate["weights"],
            confidence=candidate["confidence"],
            threads=job.fields["threads"],
            batch=job.fields["batch"],
            source=candidate["name"],
        )
        return chain.prepare(random_input(chain.ends, rng), candidate["exits"])
    session = _session(job, candidate)
    return session.prepare(random_input(session.ends, rng))


def _session(job: Job, candidate: dict[str, Any]) -> OnnxSession:
    return OnnxSession(
        job.model(candidate["model"]),
        threads=job.fields["threads"],
        batch=job.fields["batch"],
        parts=job.fields["precision"] == "int8",
        source=candidate["name"],
    )


def _part(tell: Tell, start: float, end: float) -> Tell:
    def part(share: float, text: str) -> None:
        tell(start + (end - start) * share, text)

    return part


@contextmanager
def _alone(lock: Path, tell: Tell) -> Iterator[None]:
    """Wait until no other job measures: one that lost its connection may be about to end.

    Where the system has no locks, or none in that place, nothing is waited for.
    """
    with ExitStack() as stack:
        try:
            import fcntl

            stream = stack.enter_context(lock.open("w"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(0.0, "waiting for another measurement on this device")
                fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, media that cannot be written to, a share without locks
            pass
        yield
