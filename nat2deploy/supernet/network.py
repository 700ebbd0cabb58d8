"""The super-network: every sub-network of a space at one width, in one set of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nat2deploy.blocks import MBConv, SubNetwork, build_block, initialise
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.lowering import layer_signature, lower
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.elastic import ElasticMBConv


class SuperNetwork(nn.Module):
    """All sub-networks of ``space`` at one ``width`` (Once-For-All; Cai et al., 2020).

    ``supernet(images, architecture)`` runs one of them; ``extract(architecture)`` copies it out as a plain
    module. Nothing is ever "set active": calls with different architectures do not disturb each other.
    """

    def __init__(self, space: SearchSpace, width: float, classes: int) -> None:
        super().__init__()
        if width not in space.widths:
            have = ", ".join(f"{w:g}" for w in space.widths)
            raise UserError(f"space '{space.name}' has no width {width:g}; choose from {have}")
        self.space = space.restrict(widths=(width,))
        self.width = width
        self.classes = classes
        largest = self.space.largest()
        plain = lower(self.space, largest, classes)
        self.stem = nn.Sequential(build_block(plain[0]), build_block(plain[1]))
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ElasticMBConv(
                    layer_signature(self.space, largest.resolution, width, stage, position, layer),
                    space.kernels,
                )
                for position, layer in enumerate(layers)
            )
            for stage, layers in enumerate(largest.stages)
        )
        self.head = build_block(plain[-2])
        self.classifier = build_block(plain[-1])
        initialise(self)

    def _layers(self, architecture: Architecture) -> list[tuple[ElasticMBConv, int, int]]:
        """The elastic layers that are present, each with its kernel and middle channels."""
        chosen = []
        for stage, layers in enumerate(architecture.stages):
            elastic = self.stages[stage]
            assert isinstance(elastic, nn.ModuleList)
            for position, layer in enumerate(layers):
                signature = layer_signature(
                    self.space, architecture.resolution, self.width, stage, position, layer
                )
                block = elastic[position]
                assert isinstance(block, ElasticMBConv)
                chosen.append((block, layer.kernel, signature.mid_channels))
        return chosen

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        """[B, 3, r, r] to logits [B, classes], with only the architecture's weights."""
        self._check(architecture)
        x = self.stem(images)
        for block, kernel, channels in self._layers(architecture):
            x = block(x, kernel, channels)
        return self.classifier(self.head(x))  # type: ignore[no-any-return]

    def extract(self, architecture: Architecture) -> SubNetwork:
        """Return the sub-network as a plain module with its own copy of the weights, in the same mode.

        Raises:
            UserError: the architecture is not of this space and width.
        """
        self._check(architecture)
        network = SubNetwork(lower(self.space, architecture, self.classes))
        plain = list(network)
        with torch.no_grad():
            for source, copy in zip(
                (*self.stem, self.head, self.classifier), (*plain[:2], *plain[-2:]), strict=True
            ):
                copy.load_state_dict(source.state_dict())
        for (block, _, _), copy in zip(self._layers(architecture), plain[2:-2], strict=True):
            assert isinstance(copy, MBConv)
            block.slice_into(copy)
        network.train(self.training)
        return network.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def sort_channels(self) -> None:
        """Put the most important middle channels first in every elastic layer."""
        for block in self.modules():
            if isinstance(block, ElasticMBConv):
                block.sort_channels()

    def with_classes(self, classes: int) -> SuperNetwork:
        """Return a copy for another number of classes; the classifier starts anew unless it is the same."""
        copy = SuperNetwork(self.space, self.width, classes)
        state = self.state_dict()
        if classes != self.classes:
            state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
        copy.load_state_dict(state, strict=False)
        return copy.to(self.device).train(self.training)

    def _check(self, architecture: Architecture) -> None:
        if not self.space.contains(architecture):
            raise UserError(
                f"architecture '{architecture}' is not in space '{self.space.name}' at width {self.width:g}"
            )
