"""A network's exits: added before its last one, judged in every on/off state, and cut away."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nat2deploy.blocks import SubNetwork, reset_seeded
from nat2deploy.data.batches import batches
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.evaluation import Accuracy, answers_accuracy

Exits = tuple[int, ...]
"""Stages, counted from 1, behind which an exit is on."""


@dataclass(frozen=True)
class JudgedExits:
    """A network's exits with the ensemble's weights, and the accuracy of each on/off state."""

    weights: tuple[float, ...]
    """One an exit of the network, in order."""
    states: Mapping[Exits, Accuracy]

    @property
    def exits(self) -> Exits:
        """All of the network's exits."""
        return max(self.states, key=len)

    @property
    def is_finite(self) -> bool:
        """Whether every state's loss is a finite number."""
        return all(math.isfinite(accuracy.loss) for accuracy in self.states.values())

    @property
    def whole(self) -> Accuracy:
        """The accuracy with all exits on."""
        return self.states[self.exits]

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        states = [[list(exits), a.top1, a.loss, a.images] for exits, a in self.states.items()]
        return {"weights": list(self.weights), "states": states}

    def worst(self, other: JudgedExits) -> JudgedExits:
        """Each state's lower accuracy of two."""
        states = {
            exits: min(one, other.states[exits], key=lambda accuracy: accuracy.top1)
            for exits, one in self.states.items()
        }
        return JudgedExits(self.weights, states)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> JudgedExits:
        """From what ``to_json`` returned."""
        states = {tuple(exits): Accuracy(top1, loss, n) for exits, top1, loss, n in value["states"]}
        return cls(tuple(value["weights"]), states)


def space_with_exits(space: SearchSpace) -> SearchSpace:
    """The space itself where it has early exits, else the same one with several."""
    if space.exits != "final":
        return space
    base, _, body = space.name.rpartition("-se-")
    name = f"{base}-me-{body}" if base else f"{space.name}-me-b"
    return space.model_copy(update={"exits": "several", "name": name[-64:]})


def with_exits(architecture: Architecture, exits: Exits) -> Architecture:
    """The architecture with these exits; stages behind the last of them are cut."""
    return replace(architecture, stages=architecture.stages[: exits[-1]], exits=exits)


def with_earlier_exits(architecture: Architecture) -> Architecture:
    """The architecture with an exit behind each of its stages."""
    return with_exits(architecture, tuple(range(1, len(architecture.stages) + 1)))


def network_with_exits(supernet: AnySuperNetwork, architecture: Architecture, seed: int) -> SubNetwork:
    """Return a sub-network with an exit behind each of its stages (AEP's "anticipate").

    Those that the super-network has are taken from it; those that it has not are drawn from ``seed``.
    """
    if supernet.space.exits != "final":
        return supernet.extract(with_earlier_exits(architecture))
    space = space_with_exits(supernet.space)
    network = SubNetwork(plan_network(space, with_earlier_exits(architecture), supernet.classes))
    reset_seeded(network, seed)
    network.load_state_dict(network.state_dict() | supernet.extract(architecture).state_dict())
    return network.to(supernet.device).train(supernet.training)


def keep_exits(
    network: SubNetwork,
    space: SearchSpace,
    architecture: Architecture,
    exits: Exits,
    weights: Sequence[float],
) -> SubNetwork:
    """Return a copy of an architecture's network with these of its exits, and nothing behind their last one.

    Args:
        network: not changed.
        space: of the architecture.
        architecture: of the network.
        exits: those that stay on.
        weights: of all of the network's exits; the kept ones' are scaled to add up to 1.
    """
    held = dict(zip(architecture.exits, weights, strict=True))
    classes = _classes(network)
    kept = SubNetwork(plan_network(space, with_exits(architecture, exits), classes))
    state = network.state_dict()
    kept.load_state_dict(
        {key: state[key] for key in kept.state_dict() if key != "exit_weights"}, strict=False
    )
    total = sum(held[stage] for stage in exits)
    if total > 0:  # else none of them counted before: they count the same
        kept.exit_weights.copy_(torch.tensor([held[stage] / total for stage in exits]))
    return kept.to(next(network.parameters()).device).train(network.training)


class EachExit(nn.Module):
    """A network's exits without their sum: [B, 3, r, r] to the logits [B, classes] of each, in order."""

    def __init__(self, network: SubNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, r, r] to one [B, classes] an exit."""
        return tuple(self.network.exit_logits(images))


def exit_logits(network: nn.Module, data: ImageData, split: Split, resolution: int) -> Tensor:
    """Logits on a split at a resolution in pixels, in evaluation mode: [exits, N, classes].

    ``network`` answers as ``EachExit`` does.
    """
    network.eval()
    device = next(network.parameters()).device
    found = []
    stream = batches(
        split, batch_size=250, resolution=resolution, normalisation=data.normalisation, shuffle_seed=None
    )
    with torch.inference_mode():
        for images, _ in stream:
            images = images.to(device, memory_format=torch.channels_last)
            found.append(torch.stack(network(images)).cpu())
    return torch.cat(found, dim=1)


def judge_exits(
    logits: Tensor,
    exits: Exits,
    weights: Sequence[float],
    targets: Tensor,
    no_answer: float = math.nan,
) -> JudgedExits:
    """Judge every on/off state of a network's exits but the one with all off.

    Args:
        logits: of each exit [exits, N, classes].
        exits: their stages, in order.
        weights: of the ensemble, one an exit; its prediction is the argmax of the weighted sum of logits.
        targets: the classes [N].
        no_answer: the loss of an image for which that is not finite.
    """
    states: dict[Exits, Accuracy] = {}
    for count in range(1, len(exits) + 1):
        for chosen in itertools.combinations(range(len(exits)), count):
            total = sum(weights[index] for index in chosen)
            shares = [weights[index] / total if total > 0 else 1 / count for index in chosen]
            mixed = torch.stack([share * logits[i] for share, i in zip(shares, chosen, strict=True)]).sum(0)
            found = Accuracy(
                int((mixed.argmax(1) == targets).sum()) / len(targets),
                float(F.cross_entropy(mixed, targets)),
                len(targets),
            )
            if not math.isfinite(found.loss):
                found = answers_accuracy(mixed, targets, no_answer)
            states[tuple(exits[index] for index in chosen)] = found
    return JudgedExits(tuple(weights), states)


def _classes(network: SubNetwork) -> int:
    last = list(network.exits.values())[-1]
    linear = [part for part in last.modules() if isinstance(part, nn.Linear)][-1]
    return linear.out_features
