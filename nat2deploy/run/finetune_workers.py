"""Fine-tuning several networks at the same time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

from nat2deploy.errors import UserError, first_line, out_of_memory
from nat2deploy.progress import Report
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.finetune_network import NetworkTuning
from nat2deploy.run.front import current_front
from nat2deploy.run.read_search import read_search
from nat2deploy.search.judges.processes import without_ctrl_c

_LAST_WORDS_S = 5.0


@dataclass(frozen=True)
class Job:
    """A network of a run that is to be tuned."""

    run: Path
    network: str
    config: FinetuneConfig


@dataclass
class _Running:
    job: Job
    device: str
    process: SpawnProcess
    connection: Connection
    share: float = 0.0


def tune_side_by_side(jobs: Sequence[Job], devices: Sequence[str], report: Report) -> None:
    """Tune each job's network, each on the next free one of ``devices``; they share PyTorch's threads.

    A device that is named twice takes two at a time.
    When one fails, or this process is interrupted, the others are ended too; their checkpoints stay. Workers
    that have loaded what they need end themselves at once when this process is killed.

    Raises:
        UserError: a network could not be tuned.
    """
    import torch

    threads = max(1, torch.get_num_threads() // len(devices))
    context = multiprocessing.get_context("spawn")
    waiting, free, finished = list(jobs), list(devices), 0
    running: dict[Connection, _Running] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, device = waiting.pop(0), free.pop(0)
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(job, device, threads, theirs), daemon=True)
                resource_tracker.ensure_running()  # else the first one starts it, which lets Ctrl-C in again
                with without_ctrl_c():
                    process.start()
                theirs.close()
                running[ours] = _Running(job, device, process, ours)
            for connection in wait(list(running)):
                one = running[cast(Connection, connection)]
                try:
                    kind, value, detail = one.connection.recv()
                except EOFError:
                    kind, value, detail = "failed", 0.0, _end(one.process)
                if kind == "failed":
                    raise UserError(f"network {one.job.network}: {detail}")
                if kind == "done":
                    finished += 1
                    del running[one.connection]
                    free.append(one.device)
                    one.process.join()
                else:
                    one.share = value
                share = finished + sum(other.share for other in running.values())
                report(f"fine-tune {len(jobs)} networks", share, len(jobs), f"{one.job.network}: {detail}")
    finally:
        for one in running.values():
            one.process.kill()
            one.process.join()


def _end(process: SpawnProcess) -> str:
    """Say how a process ended that told nothing."""
    process.join(_LAST_WORDS_S)
    if process.exitcode == -signal.SIGKILL:
        return (
            "its process was killed, as systems do where memory runs out; use fewer workers then, and run "
            "this again to go on"
        )
    return f"its process ended with exit code {process.exitcode}; run this again to go on"


def _end_with_parent() -> None:
    """Wait for the end of this process's parent, however it comes, and end with it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Job, device: str, threads: int, connection: Connection) -> None:
    """Tune one network, and tell the parent: (what, share done, words)."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)

    def tell(stage: str, done: float, total: float, detail: str = "") -> None:
        phase = 0.5 if stage.endswith("phase 2") else 0.0
        share = phase + 0.5 * done / total if "phase" in stage else done / total
        connection.send(("at", share, detail))

    try:
        run = RunDirectory(job.run)
        chosen = current_front(run.front_path).choose(job.network)
        tuning = NetworkTuning(run, read_search(run), chosen, job.config)
        report = tuning.finetune(device, tell)
        connection.send(("done", 1.0, f"{100 * report.test.top1:.2f} % on test"))
    except UserError as error:
        connection.send(("failed", 0.0, str(error)))
    except (BrokenPipeError, KeyboardInterrupt):  # the parent is gone, or ends this process
        return
    except Exception as error:
        if out_of_memory(error):
            words = "memory ran out; use fewer workers or smaller batches"
        else:
            if not isinstance(error, OSError):  # of the system, which says what is wrong
                traceback.print_exc()
            words = f"{type(error).__name__}: {first_line(error)}"
        connection.send(("failed", 0.0, words))
