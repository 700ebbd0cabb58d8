"""The super-network: every sub-network of a space at one width, in one set of weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nat2deploy.blocks import (
    Classifier,
    SubNetwork,
    build_block,
    build_exit,
    initialise,
    reset_seeded,
    run_network,
)
from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.elastic import ElasticLayer, ElasticMBConv


class SuperNetwork(nn.Module):
    """All sub-networks of ``space`` at one ``width`` (Cai et al., 2020; OFAv2: Sarti et al., 2023).

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
        full = plan_network(self.space, self.space.full(), classes)
        self.stem = nn.Sequential(*(build_block(signature) for signature in full.stem))
        self.stages = nn.ModuleList(
            nn.ModuleList(ElasticLayer(layer, space.kernels) for layer in stage) for stage in full.stages
        )
        self.exits = nn.ModuleDict({str(stage): build_exit(blocks) for stage, blocks in full.exits.items()})
        initialise(self)

    def exit_logits(self, images: Tensor, architecture: Architecture) -> list[Tensor]:
        """[B, 3, r, r] to the logits [B, classes] of each of the architecture's exits, in order."""
        self._check(architecture)
        plan = plan_network(self.space, architecture, self.classes)
        stages = [
            [partial(self._layer(stage, position), active=blocks) for position, blocks in enumerate(layers)]
            for stage, layers in enumerate(plan.stages)
        ]
        exits = {stage: self.exits[str(stage)] for stage in architecture.exits}
        return run_network(images, self.stem, stages, exits, dense=plan.dense)

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        """[B, 3, r, r] to logits [B, classes] with only the architecture's weights; the mean of its exits."""
        logits = self.exit_logits(images, architecture)
        return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)

    def extract(self, architecture: Architecture) -> SubNetwork:
        """Return the sub-network as a plain module with its own copy of the weights, in the same mode.

        Raises:
            UserError: the architecture is not of this space and width.
        """
        self._check(architecture)
        network = SubNetwork(plan_network(self.space, architecture, self.classes))
        network.stem.load_state_dict(self.stem.state_dict())
        for number, exit_ in network.exits.items():
            exit_.load_state_dict(self.exits[number].state_dict())
        for stage, layers in enumerate(network.layers()):
            for position, layer in enumerate(layers):
                self._layer(stage, position).slice_into(layer)
        network.train(self.training)
        return network.to(self.device)

    def _layer(self, stage: int, position: int) -> ElasticLayer:
        layers = self.stages[stage]
        assert isinstance(layers, nn.ModuleList)
        layer = layers[position]
        assert isinstance(layer, ElasticLayer)
        return layer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def sort_channels(self) -> None:
        """Put the most important middle channels first in every elastic layer."""
        for block in self.modules():
            if isinstance(block, ElasticMBConv):
                block.sort_channels()

    def with_classes(self, classes: int, seed: int = 0) -> SuperNetwork:
        """Return a copy for another number of classes; classifiers start anew unless it is the same.

        New ones are drawn from ``seed`` alone.
        """
        copy = SuperNetwork(self.space, self.width, classes)
        for module in copy.modules():
            if isinstance(module, Classifier):
                reset_seeded(module, seed)
        held = copy.state_dict()
        state = {key: value for key, value in self.state_dict().items() if value.shape == held[key].shape}
        copy.load_state_dict(state, strict=False)
        return copy.to(self.device).train(self.training)

    def _check(self, architecture: Architecture) -> None:
        if not self.space.contains(architecture):
            raise UserError(
                f"architecture '{architecture}' is not in space '{self.space.name}' at width {self.width:g}"
            )
