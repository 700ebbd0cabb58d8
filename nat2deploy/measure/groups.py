"""What is measured together: candidates that can be built anywhere, and the groups that they come in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nat2deploy.blocks import SubNetwork, build_block, reset_seeded
from nat2deploy.cost.network_choice import Network
from nat2deploy.engines.base import WHOLE, Borders
from nat2deploy.space.signature import BlockSignature

_OVERHEAD_SIZE = 8
_REFERENCE_SHAPE = (40, 16, 16)
# How many weights of a layer are drawn before they repeat: a prime, so that rows of a layer differ.
_TILE = 251


class Candidate(ABC):
    """Something to measure: a plain module that is built when it is needed, and what it is compiled with."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the module's input without the batch."""

    @property
    def borders(self) -> Borders:
        """Which ends lie inside a network: none, but for parts of one."""
        return WHOLE

    @property
    def keeps_fp32(self) -> bool:
        """Whether it runs in fp32 whatever the target's precision is."""
        return False

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the module in evaluation mode; always with the same weights."""


@dataclass(frozen=True)
class Overhead(Candidate):
    """An engine that computes next to nothing: its latency is that of a call."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(8,)."""
        return (_OVERHEAD_SIZE,)

    @property
    def keeps_fp32(self) -> bool:
        """True: converting to 8 bits and back would be most of its work."""
        return True

    def build(self) -> nn.Module:
        """Return a ReLU."""
        return nn.ReLU().eval()


@dataclass(frozen=True)
class Reference(Candidate):
    """The reference workload: an inverted-residual block.

    Its weights are constants, and so is its input: it is the same in every measurement, so its noise is the
    machine's.
    """

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(40, 16, 16)."""
        return _REFERENCE_SHAPE

    def build(self) -> nn.Module:
        """Return convolutions in a MobileNet's proportions, so that it slows down when networks do."""
        narrow = _REFERENCE_SHAPE[0]
        wide = 6 * narrow
        block = nn.Sequential(
            nn.Conv2d(narrow, wide, 1),
            nn.Hardswish(),
            nn.Conv2d(wide, wide, 5, padding=2, groups=wide),
            nn.Hardswish(),
            nn.Conv2d(wide, narrow, 1),
        )
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.fill_(0.01)
        return block.eval()


@dataclass(frozen=True)
class Block(Candidate):
    """A block as it is inside a network, with weights drawn from ``seed``."""

    signature: BlockSignature
    seed: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W), or (C,) for a classifier."""
        return self.signature.input_shape

    @property
    def borders(self) -> Borders:
        """Both ends, but for a stem's input and a classifier's output, which face the user."""
        return Borders(input=self.signature.kind != "stem", output=self.signature.kind != "classifier")

    def build(self) -> nn.Module:
        """Return the block."""
        return _with_weights(build_block(self.signature), self.seed)


@dataclass(frozen=True)
class WholeNetwork(Candidate):
    """A whole network, with weights drawn from ``seed``."""

    network: Network
    seed: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(3, r, r)."""
        return (3, self.network.architecture.resolution, self.network.architecture.resolution)

    def build(self) -> nn.Module:
        """Return the network."""
        return _with_weights(SubNetwork(self.network.plan), self.seed)


def _with_weights(module: nn.Module, seed: int) -> nn.Module:
    """Draw weights from ``seed`` that repeat within a layer: a packed job shrinks, latency stays the same."""
    reset_seeded(module, seed)
    with torch.no_grad():
        for parameter in module.parameters():
            flat = parameter.view(-1)
            flat.copy_(flat[:_TILE].repeat(-(-len(flat) // _TILE))[: len(flat)])
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
        energy_share: of the time limit, for measuring energy where the device has a meter.
        warmup_ms: how long each candidate is warmed up at least, within the time limit.
    """

    name: str
    profile: str
    candidates: Mapping[str, Candidate]
    seed: int
    precision: float
    time_limit_s: float
    energy_share: float = 0.0
    warmup_ms: float = 0.0
