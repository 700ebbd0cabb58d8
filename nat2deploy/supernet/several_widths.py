"""Super-networks of one space at several widths, side by side: NAT2 searches w1.0 and w1.2 at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.supernet.network import SuperNetwork


class SuperNetworks(nn.Module):
    """One super-network a width, each with weights of its own; an architecture's width says which it is of.

    To be used like a single ``SuperNetwork``, whose ``space`` has several widths. ``networks`` are in
    ascending order of width.

    Raises:
        UserError: they are of different spaces, resolutions or numbers of classes, or two are of one width.
    """

    def __init__(self, networks: Sequence[SuperNetwork]) -> None:
        super().__init__()
        ordered = sorted(networks, key=lambda network: network.width)
        first = ordered[0]
        widths = tuple(network.width for network in ordered)
        if len(set(widths)) < len(widths):
            raise UserError("two super-networks are of one width; give one of each")
        for network in ordered[1:]:
            same = network.space.model_copy(update={"widths": first.space.widths, "name": first.space.name})
            if same != first.space or network.classes != first.classes:
                raise UserError(
                    f"the super-networks of widths {first.width:g} and {network.width:g} differ in "
                    "their space or number of classes; train both alike"
                )
        self.space = first.space.model_copy(update={"widths": widths})
        self.classes = first.classes
        self.networks = nn.ModuleList(ordered)

    def at(self, width: float) -> SuperNetwork:
        """The super-network of a width.

        Raises:
            UserError: there is none.
        """
        for network in self.networks:
            assert isinstance(network, SuperNetwork)
            if network.width == width:
                return network
        have = " and ".join(f"{held:g}" for held in self.space.widths)
        raise UserError(f"there is no super-network of width {width:g} here, but of {have}")

    def exit_logits(self, images: Tensor, architecture: Architecture) -> list[Tensor]:
        """[B, 3, r, r] to the logits [B, classes] of each of the architecture's exits, in order."""
        return self.at(architecture.width).exit_logits(images, architecture)

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        """[B, 3, r, r] to logits [B, classes] with only the architecture's weights; the mean of its exits."""
        logits: Tensor = self.at(architecture.width)(images, architecture)
        return logits

    def extract(self, architecture: Architecture) -> SubNetwork:
        """Return the sub-network as a plain module with its own copy of the weights, in the same mode.

        Raises:
            UserError: the architecture is not of this space, or of another width.
        """
        return self.at(architecture.width).extract(architecture)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def sort_channels(self) -> None:
        """Put the most important middle channels first in every elastic layer of all."""
        for width in self.space.widths:
            self.at(width).sort_channels()


AnySuperNetwork = SuperNetwork | SuperNetworks
"""One super-network, or one a width."""


def side_by_side(networks: Sequence[SuperNetwork]) -> AnySuperNetwork:
    """Return a single super-network as it is, several as one module.

    Raises:
        UserError: as ``SuperNetworks``.
    """
    return networks[0] if len(networks) == 1 else SuperNetworks(networks)


def networks_of(supernet: AnySuperNetwork) -> list[SuperNetwork]:
    """The super-networks of each width, in ascending order."""
    if isinstance(supernet, SuperNetwork):
        return [supernet]
    return [supernet.at(width) for width in supernet.space.widths]
