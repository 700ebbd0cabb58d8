"""From what a user says of workers to the judge that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nat2deploy.data.sets import ImageData
from nat2deploy.search.judges.base import Judge, in_process
from nat2deploy.search.judges.processes import LocalProcesses


def open_judge(workers: str, data: ImageData, options: Mapping[str, Any], folder: Path) -> Judge:
    """Return the judge of ``workers``: a number of processes of this machine, ``ray`` or ``ray://HOST:PORT``.

    ``options`` are the evaluator's; ``folder`` is where files for the workers may lie.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be joined.
    """
    if workers.startswith("ray"):
        from nat2deploy.search.judges.ray_cluster import RayCluster

        return RayCluster(workers, data, options)
    count = int(workers)
    return in_process(data, options) if count == 1 else LocalProcesses(count, data, options, folder)
