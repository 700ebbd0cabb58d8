"""Sub-networks that need no evaluation of their own: those at exits that another one passes.

A network with early exits answers at each of them on its way, and up to there it is the sub-network that ends
there: the same weights and the same BN statistics. Judging both costs a classifier more than judging one. In
other precisions than fp32 each is judged by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nat2deploy.search.judges.base import Job
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding
from nat2deploy.space.search_space import SearchSpace

_TOGETHER = (None, "fp32")
"""Precisions in which what a network passes is judged with it."""


def with_passed(jobs: Sequence[Job], space: SearchSpace) -> list[Job]:
    """Return the jobs with what each passes, and without those that another one passes for certain.

    A job with gates may be given up before it has seen all images: what it passes keeps a job of its own.
    """
    passed: dict[Architecture, tuple[Architecture, ...]] = {
        job.architecture: space.passed(job.architecture) if job.architecture.precision in _TOGETHER else ()
        for job in jobs
    }
    certain = {one for job in jobs if not job.gates for one in passed[job.architecture]}
    return [replace(job, passed=passed[job.architecture]) for job in jobs if job.architecture not in certain]


def passed_by(genes: Genes, encoding: IntegerEncoding) -> tuple[NDArray[np.int64], Genes]:
    """Return the same of canonical genes [N, G]: which of the N passes each [P], and its genes [P, G]."""
    owners, passed = encoding.passed(genes)
    if encoding.precisions:
        chosen = np.array(encoding.precisions)[passed[:, encoding.precision_gene]]
        together = np.isin(chosen, [name for name in _TOGETHER if name is not None])
        owners, passed = owners[together], passed[together]
    return owners, passed
