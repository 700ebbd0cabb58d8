"""From what a user says of workers to the judge that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nat2deploy.data.sets import ImageData
from nat2deploy.search.judges.automatic import OnceItPays
from nat2deploy.search.judges.base import Judge, in_process
from nat2deploy.search.judges.processes import LocalProcesses


def open_judge(workers: str, data: ImageData, options: Mapping[str, Any], folder: Path) -> Judge:
    """Return the judge of ``workers``: ``auto``, a number of processes here, ``ray`` or ``ray://HOST:PORT``.

    ``auto`` is this process, and as many as PyTorch has threads once they pay.
    ``options`` are the evaluator's; ``folder`` is where files for the workers may lie.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be joined.
    """
    if workers.startswith("ray"):
        from nat2deploy.search.judges.ray_cluster import RayCluster

        return RayCluster(workers, data, options)
    if workers == "auto":
        threads = torch.get_num_threads()
        return in_process(data, options) if threads == 1 else OnceItPays(threads, data, options, folder)
    count = int(workers)
    return in_process(data, options) if count == 1 else LocalProcesses(count, data, options, folder)
