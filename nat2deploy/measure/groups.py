"""What is measured together: candidates that can be built anywhere, and the groups that they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from nat2deploy.blocks import SubNetwork, build_block, reset_seeded
from nat2deploy.cost.network_choice import Network
from nat2deploy.space.signature import BlockSignature

_OVERHEAD_SIZE = 8


class Candidate(Protocol):
    """Something to measure: a plain module that is built when it is needed, and the shape of its input."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input without the batch."""

    def build(self) -> nn.Module:
        """Return the module in evaluation mode; always with the same weights."""


@dataclass(frozen=True)
class Overhead:
    """An engine that computes next to nothing: its latency is that of a call."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(8,)."""
        return (_OVERHEAD_SIZE,)

    def build(self) -> nn.Module:
        """Return a ReLU."""
        return nn.ReLU().eval()


@dataclass(frozen=True)
class Block:
    """A block alone, with weights drawn from ``seed``."""

    signature: BlockSignature
    seed: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W), or (C,) for a classifier."""
        return self.signature.input_shape

    def build(self) -> nn.Module:
        """Return the block."""
        module = build_block(self.signature)
        reset_seeded(module, self.seed)
        return module.eval()


@dataclass(frozen=True)
class WholeNetwork:
    """A whole network, with weights drawn from ``seed``."""

    network: Network
    seed: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(3, r, r)."""
        return (3, self.network.architecture.resolution, self.network.architecture.resolution)

    def build(self) -> nn.Module:
        """Return the network."""
        module = SubNetwork(self.network.plan)
        reset_seeded(module, self.seed)
        return module.eval()


@dataclass(frozen=True)
class Group:
    """Candidates that are measured interleaved, beside the reference workload.

    Attributes:
        name: tells the groups of one profile apart.
        profile: the profile that the group belongs to; a device takes results that it kept for the same
            profile only.
        candidates: by name, in the order in which they are compiled.
        seed: of the input images and of the visiting orders.
        precision: a candidate is done when its 95 % interval lies within this share of its median.
        time_limit_s: seconds of measuring; compiling comes on top.
    """

    name: str
    profile: str
    candidates: Mapping[str, Candidate]
    seed: int
    precision: float
    time_limit_s: float
