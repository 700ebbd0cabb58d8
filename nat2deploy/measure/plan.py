"""What a profile measures: the blocks of a space in groups, and whole networks in groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nat2deploy.cost.activations import peak_values
from nat2deploy.cost.certificate import FEWEST_NETWORKS
from nat2deploy.cost.input_sizes import thinned
from nat2deploy.cost.memory import network_peak_values
from nat2deploy.cost.network_choice import Network, choose_networks
from nat2deploy.errors import UserError
from nat2deploy.measure.groups import Block, Candidate, Group, Overhead, WholeNetwork
from nat2deploy.measure.time_needed import blocks_remark
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Fingerprint, Target
from nat2deploy.version import __version__

CLASS_LADDER = (2, 10, 100, 1000)
"""Class counts that classifiers are measured at."""
OVERHEAD = "call overhead"
"""The candidate of every block group that computes next to nothing."""
# Engines alive at once: enough that interleaving spreads drift, few enough for the memory of an edge device.
_BLOCKS_AT_ONCE = 80
_NETWORKS_AT_ONCE = 64
_BYTES_A_PARAM = 12  # as loaded, as the engine packs it anew, and for all else that an engine holds
_BYTES_A_VALUE = 8  # of activations: ONNX Runtime's arena grew to twice what lives at once
_BLOCK_SHARE = 0.6
_LEAST_S = 0.1
_ENERGY_SHARE = 0.25  # of the time for blocks


@dataclass(frozen=True)
class ProfilePlan:
    """A profile to be made.

    Attributes:
        space: its resolutions and widths are what the table covers.
        target: backend, precision, threads and batch, as deployed.
        seed: of the visiting orders, the weights and the networks.
        precision: wanted relative half width of each block's confidence interval; half of it for networks.
        time_limit_s: seconds of measuring, six tenths of them at most for blocks; compiling comes on top. A
            quarter of the blocks' time goes to their energy where the device has a meter and can in that
            time.
        calibration_networks: whole networks that the calibration is fitted to.
        held_out_networks: whole networks, others, that the certificate is of.
        every_size: each block is measured at every so-manieth of its input sizes; the rest is interpolated.
        warmup_ms: how long each block and network is warmed up at least; a fifth of the time at most.

    Raises:
        UserError: too few networks.
    """

    space: SearchSpace
    target: Target
    seed: int = 0
    precision: float = 0.01
    time_limit_s: float = 300.0
    calibration_networks: int = 24
    held_out_networks: int = 50
    every_size: int = 1
    warmup_ms: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers of networks."""
        if min(self.calibration_networks, self.held_out_networks) < FEWEST_NETWORKS:
            raise UserError(
                f"calibration and certificate need {FEWEST_NETWORKS} networks each or more, "
                f"not {self.calibration_networks} and {self.held_out_networks}; ask for more"
            )

    @cached_property
    def signatures(self) -> list[BlockSignature]:
        """All blocks of the space that are measured."""
        return thinned(list(every_signature(self.space, CLASS_LADDER)), self.every_size)

    def blocks_remark(self) -> str:
        """Say that the time is short for so many blocks, or nothing."""
        share = _BLOCK_SHARE * (1 - _ENERGY_SHARE)
        return blocks_remark(len(self.signatures), self.every_size, self.time_limit_s, share)

    def settings(self, machine: Fingerprint) -> dict[str, Any]:
        """Everything that block measurements depend on, as plain JSON values."""
        return {
            "space": self.space.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json"),
            "machine": machine.steady(),
            "version": __version__,
            "seed": self.seed,
            "precision": self.precision,
            "time_limit_s": self.time_limit_s,
            "every_size": self.every_size,
            "warmup_ms": self.warmup_ms,
        }

    def block_groups(
        self,
        profile: str,
        measured: Collection[str],
        elapsed_s: Callable[[], float],
        memory_bytes: int | None,
    ) -> Iterator[tuple[Sequence[BlockSignature], Group]]:
        """Yield the blocks that are left, in random order, chunk by chunk, with the group to measure.

        Each group may take its share of the time that is left when it is asked for, and half of the memory,
        where it is known.

        Args:
            profile: as ``Group.profile``.
            measured: keys of blocks that are done.
            elapsed_s: seconds spent on measuring blocks so far.
            memory_bytes: of the device.
        """
        rng = np.random.default_rng(self.seed)
        order = [self.signatures[index] for index in rng.permutation(len(self.signatures))]
        left = [signature for signature in order if signature.key not in measured]
        done = len(order) - len(left)
        start = 0
        for chunk in _chunks(left, self.target.batch, memory_bytes):
            remaining_s = self.time_limit_s * _BLOCK_SHARE - elapsed_s()
            candidates: dict[str, Candidate] = {OVERHEAD: Overhead()}
            candidates.update((signature.key, Block(signature, self.seed)) for signature in chunk)
            first = done + start + 1
            yield (
                chunk,
                Group(
                    name=f"blocks {first} to {first + len(chunk) - 1} of {len(order)}",
                    profile=profile,
                    candidates=candidates,
                    seed=self.seed + done + start,
                    precision=self.precision,
                    time_limit_s=max(remaining_s * len(chunk) / (len(left) - start), _LEAST_S),
                    energy_share=_ENERGY_SHARE,
                    warmup_ms=self.warmup_ms,
                ),
            )
            start += len(chunk)

    def choose_networks(self, latency_ms: Callable[[Sequence[BlockSignature]], float]) -> list[Network]:
        """Choose the networks to measure, spread over the range of ``latency_ms``; calibration's first.

        Raises:
            UserError: the space has too few.
        """
        count = self._networks
        networks = choose_networks(
            self.space,
            latency_ms,
            np.random.default_rng([self.seed, 1]),
            count,
            most_classes=CLASS_LADDER[-1],
        )
        if len(networks) < count:
            least = 2 * FEWEST_NETWORKS
            raise UserError(
                f"space '{self.space.name}' has only {len(networks)} networks to measure, not {count}; "
                + ("ask for fewer" if len(networks) >= least else f"a table needs {least}: give more choices")
            )
        return networks

    def check_networks(self) -> None:
        """Check that there are enough networks, before the blocks are measured that they are chosen by.

        Raises:
            UserError: the space has too few.
        """
        rng = np.random.default_rng(self.seed)
        if len(random_architectures(IntegerEncoding(self.space), rng, self._networks)) < self._networks:
            self.choose_networks(lambda network: sum(signature.macs for signature in network))

    @property
    def _networks(self) -> int:
        return self.calibration_networks + self.held_out_networks

    def network_groups(
        self, profile: str, networks: Sequence[Network], memory_bytes: int | None, spent_s: float
    ) -> list[Group]:
        """Put chosen networks into groups, within what blocks left of the time: they took ``spent_s``."""
        return network_groups(
            networks,
            profile=profile,
            seed=self.seed,
            precision=self.precision / 2,
            time_limit_s=max(self.time_limit_s - spent_s, self.time_limit_s * (1 - _BLOCK_SHARE)),
            batch=self.target.batch,
            memory_bytes=memory_bytes,
            warmup_ms=self.warmup_ms,
        )


def _chunks(
    blocks: Sequence[BlockSignature], batch: int, memory_bytes: int | None
) -> Iterator[list[BlockSignature]]:
    """Yield blocks in order, as many at once as fit into half of the memory; at least one."""
    chunk: list[BlockSignature] = []
    taken = 0
    for block in blocks:
        size = _held_bytes(block.params, peak_values(block, keep_input=False), batch)
        full = memory_bytes is not None and 2 * (taken + size) > memory_bytes
        if chunk and (full or len(chunk) == _BLOCKS_AT_ONCE):
            yield chunk
            chunk, taken = [], 0
        chunk.append(block)
        taken += size
    if chunk:
        yield chunk


def _held_bytes(params: int, values: int, batch: int) -> int:
    """What an engine takes; ``values`` is the most activations that live at once, for one image."""
    return _BYTES_A_PARAM * params + _BYTES_A_VALUE * batch * values


def network_groups(
    networks: Sequence[Network],
    *,
    profile: str,
    seed: int,
    precision: float,
    time_limit_s: float,
    batch: int,
    memory_bytes: int | None,
    warmup_ms: float = 0.0,
) -> list[Group]:
    """Put networks with seeded weights into groups to be measured; candidates are named by their index.

    All together where they fit, because a neighbour's memory traffic slows large networks by several per cent
    for minutes, which the small reference workload does not see; more than fit at once are dealt out, so that
    calibration and held-out networks share their hours. They may take half of the memory, where it is known.
    """
    parts = -(-len(networks) // _NETWORKS_AT_ONCE)
    if memory_bytes is not None:
        taken = sum(
            _held_bytes(sum(s.params for s in one.signatures), network_peak_values(one.plan), batch)
            for one in networks
        )
        parts = min(max(parts, -(-2 * taken // memory_bytes)), len(networks))
    return [
        Group(
            name=f"networks, part {part + 1} of {parts}" if parts > 1 else "networks",
            profile=profile,
            candidates={
                network_name(index, networks[index]): WholeNetwork(networks[index], seed + index)
                for index in range(part, len(networks), parts)
            },
            seed=seed + part,
            precision=precision,
            time_limit_s=max(time_limit_s / parts, _LEAST_S),
            warmup_ms=warmup_ms,
        )
        for part in range(parts)
    ]


def network_name(index: int, network: Network) -> str:
    """Name a network among the chosen ones, such as ``3: a7797ddeca, 10 classes``."""
    return f"{index}: {network.architecture.id}, {network.classes} classes"
