"""Judging here while it is short, and in processes once they pay."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nat2deploy.data.sets import ImageData
from nat2deploy.search.judges.base import InProcess, Job, Judge, Judged, Weights, in_process
from nat2deploy.search.judges.processes import LocalProcesses

PAYS_AFTER_S = 10.0
"""Seconds of judging after which more is expected: processes take a few seconds to start."""
MOST_PROCESSES = 8
"""Each holds PyTorch, some 300 MB."""


class OnceItPays(Judge):
    """Judges in this process, and from ``pays_after_s`` seconds of it on in ``count`` processes.

    Who judges does not change what is found, so a search may change over in the middle of a batch.
    """

    def __init__(
        self,
        count: int,
        data: ImageData,
        options: Mapping[str, Any],
        folder: Path,
        pays_after_s: float = PAYS_AFTER_S,
    ) -> None:
        self.here: InProcess = in_process(data, options)
        self.processes = LocalProcesses(min(count, MOST_PROCESSES), data, options, folder)
        self.pays_after_s = pays_after_s
        self.judged_s = 0.0

    def judge(self, weights: Weights, jobs: Sequence[Job]) -> Generator[Judged]:
        """Yield what is found of the jobs in their order."""
        done = 0
        while done < len(jobs) and (self.judged_s < self.pays_after_s or len(jobs) - done == 1):
            begun = time.monotonic()
            judged = next(self.here.judge(weights, jobs[done : done + 1]))
            self.judged_s += time.monotonic() - begun
            done += 1
            yield judged
        if done < len(jobs):
            yield from self.processes.judge(weights, jobs[done:])

    def close(self) -> None:
        """End the processes, where there are any."""
        self.processes.close()
