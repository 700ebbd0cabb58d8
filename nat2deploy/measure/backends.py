"""Which backend runs the networks of a space fastest on this machine."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nat2deploy.cost.network_choice import Network
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.groups import WholeNetwork
from nat2deploy.measure.interleave import Progress
from nat2deploy.measure.networks import measure_engines
from nat2deploy.measure.prepared import random_input
from nat2deploy.measure.workloads import compile_candidate
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.target import Backend, Target

_RANDOM_NETWORKS = 4
_CLASSES = 100


@dataclass(frozen=True)
class BackendLatency:
    """A target that was measured.

    ``ratio`` is its latency as a multiple of the fastest backend's: the geometric mean over the networks, 1
    for the fastest.
    """

    target: Target
    ratio: float


@dataclass(frozen=True)
class BackendChoice:
    """The backends that could be measured, the fastest first, and why the others could not.

    ``reason`` says in a few words why the fastest one was chosen.
    """

    measured: tuple[BackendLatency, ...]
    reason: str
    left_out: dict[Backend, str]

    @property
    def fastest(self) -> Target:
        """The target to profile."""
        return self.measured[0].target


def choose_backend(
    space: SearchSpace,
    targets: Sequence[Target],
    *,
    seed: int,
    time_limit_s: float,
    precision: float = 0.02,
    progress: Progress | None = None,
) -> BackendChoice:
    """Measure the space's smallest, largest and some random networks on each target, all interleaved.

    A backend that cannot run them here is left out.

    Args:
        space: its resolutions and widths are those that networks are drawn from.
        targets: one a backend, otherwise equal.
        seed: of the random networks, the weights and the visiting orders.
        time_limit_s: seconds of measuring; compiling comes on top.
        precision: wanted relative half width of each network's confidence interval.
        progress: told the share done and a line of text.

    Raises:
        UserError: no backend can run them, or more threads than cores.
    """
    networks = _networks(space, seed)
    engines: dict[Target, list[Engine]] = {}
    left_out: dict[Backend, str] = {}
    for position, target in enumerate(targets):
        if progress is not None:
            progress(0.5 * position / len(targets), f"compiling for {target.backend}")
        with pinned_threads(target):
            try:
                engines[target] = _engines(networks, target, seed)
            except (UserError, RuntimeError, MemoryError) as error:
                left_out[target.backend] = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _free_memory(target)
    if not engines:
        raise UserError(f"no backend can run this space's networks here: {'; '.join(left_out.values())}")
    if len(engines) == 1:
        (only,) = engines
        return BackendChoice(
            (BackendLatency(only, 1.0),), f"the only one that runs {only.precision} here", left_out
        )
    found = measure_engines(
        {_name(target, i): engine for target, all_ in engines.items() for i, engine in enumerate(all_)},
        seed=seed,
        time_limit_s=time_limit_s,
        precision=precision,
        progress=None if progress is None else lambda share, text: progress(0.5 + share / 2, text),
    )
    means_ms = {
        target: _geometric_mean([found.summaries[_name(target, i)].median_ms for i in range(len(networks))])
        for target in engines
    }
    order = sorted(engines, key=lambda target: means_ms[target])
    measured = tuple(BackendLatency(target, means_ms[target] / means_ms[order[0]]) for target in order)
    return BackendChoice(measured, f"the fastest on {len(networks)} networks", left_out)


def _engines(networks: Sequence[WholeNetwork], target: Target, seed: int) -> list[Engine]:
    """Compile networks, and run each once: much fails only then, such as capturing a CUDA graph."""
    rng = np.random.default_rng(seed)
    engines = []
    for network in networks:
        engine = compile_candidate(network, target)
        engine.prepare(random_input(engine, rng))()
        engines.append(engine)
    return engines


def _free_memory(target: Target) -> None:
    """Hand back what is no longer held: PyTorch keeps a GPU's memory, which other backends lack then."""
    gc.collect()
    if target.kind == "cuda":
        import torch

        torch.cuda.empty_cache()


def _networks(space: SearchSpace, seed: int) -> list[WholeNetwork]:
    ends = [
        space.smallest(min(space.resolutions), min(space.widths)),
        space.largest(max(space.resolutions), max(space.widths)),
    ]
    drawn = random_architectures(IntegerEncoding(space), np.random.default_rng([seed, 3]), _RANDOM_NETWORKS)
    architectures = dict.fromkeys([*ends, *drawn])
    return [
        WholeNetwork(Network(one, _CLASSES, plan_network(space, one, _CLASSES)), seed + index)
        for index, one in enumerate(architectures)
    ]


def _name(target: Target, index: int) -> str:
    return f"{target.backend} {index}"


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
