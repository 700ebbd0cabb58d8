"""The front door of judging a super-network: its ends and random sub-networks, with inherited weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nat2deploy.data.load import load_data
from nat2deploy.errors import UserError
from nat2deploy.progress import Report, silent
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower, total_macs, total_params
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge


@dataclass(frozen=True)
class EvaluatedNetwork:
    """One sub-network: what it is, its accuracy with inherited weights, and its exact counts."""

    role: str
    id: str
    architecture: str
    top1: float
    images: int
    macs: int
    params: int


def evaluate(
    supernet_name: str | Path,
    data_spec: str,
    *,
    networks: int,
    split: str,
    seed: int = 0,
    report: Report = silent,
) -> list[EvaluatedNetwork]:
    """Judge a super-network's smallest, largest and ``networks`` random sub-networks, BN recalibrated.

    Raises:
        UserError: no super-network, no such split, or data with other classes than the super-network's.
    """
    if split not in ("validation", "test"):
        raise UserError(f"--split {split}: choose validation or test")
    supernet, info = load_supernet(find_supernet(supernet_name))
    data = load_data(data_spec, base_resolution=max(info.space.resolutions))
    if data.labels != info.labels:
        raise UserError(
            f"{data_spec} has other classes than super-network {supernet_name}: {_few(data.labels)}, not "
            f"{_few(info.labels)}; give its own data, {info.data}"
        )
    space = supernet.space
    drawn = random_architectures(IntegerEncoding(space), np.random.default_rng([seed, 12]), networks)
    chosen = [("smallest", space.smallest()), ("largest", space.largest()), *(("random", a) for a in drawn)]
    evaluator = SubNetworkEvaluator(data, seed=seed)
    judged_on = data.validation if split == "validation" else data.test
    found = []
    for index, (role, architecture) in enumerate(chosen):
        report("evaluate", index, len(chosen), role)
        accuracy = judge(evaluator.network(supernet, architecture), data, judged_on, architecture.resolution)
        signatures = lower(space, architecture, info.classes)
        found.append(
            EvaluatedNetwork(
                role,
                architecture.id,
                str(architecture),
                accuracy.top1,
                accuracy.images,
                total_macs(signatures),
                total_params(signatures),
            )
        )
    report("evaluate", len(chosen), len(chosen))
    return found


def _few(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:3])
    return f"{len(labels)} ({shown}{', ...' if len(labels) > 3 else ''})"
