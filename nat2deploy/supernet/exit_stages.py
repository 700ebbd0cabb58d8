"""A network with several exits as parts that run one after another: each ends with an exit's logits."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nat2deploy.blocks import Classifier, LayerBranches, SubNetwork, run_network
from nat2deploy.errors import UnfitNetworkError


class ExitStage(nn.Module):
    """What a network computes from one exit to the next.

    [B, 3, r, r], or the features [B, C, H, W] of the part before, to this exit's logits [B, classes] times
    its weight in the ensemble, and the features for the next part; the last part gives logits alone.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[LayerBranches]],
        exit_: nn.Module,
        *,
        dense: bool,
        last: bool,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(nn.ModuleList(stage) for stage in stages)
        self.exit = exit_
        self._parts = [list(stage) for stage in stages]
        self.dense = dense
        self.last = last

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """[B, C, H, W] to logits [B, classes], and features where this is not the last part."""
        end = {len(self._parts): nn.Identity()}
        (features,) = run_network(x, self.stem, self._parts, end, dense=self.dense)
        logits: Tensor = self.exit(features)
        return logits if self.last else (logits, features)


def exit_stages(network: SubNetwork) -> list[ExitStage]:
    """Cut a network behind each of its exits, for early-exit inference (BranchyNet: Teerapittayanon, 2016).

    The sum of the parts' logits is what the network returns. Dense skips lie inside a stage, so one tensor is
    handed over from part to part. The parts hold copies, in evaluation mode.

    Raises:
        UnfitNetworkError: a network with one exit.
    """
    if len(network.exits) < 2:
        raise UnfitNetworkError(
            "the network has one exit, so there is none to stop at early; search a space of several, such as "
            "nano-me-d, or add some with `nat2deploy finetune RUN --method aep --prune none` to a network of "
            "several stages (one that validates worse with them is kept as it was: give it more --epochs)"
        )
    network = copy.deepcopy(network).eval()
    layers, before = network.layers(), 0
    parts: list[ExitStage] = []
    for (name, exit_), weight in zip(network.exits.items(), network.exit_weights.tolist(), strict=True):
        behind = int(name)
        _weigh(exit_, weight)
        stem: nn.Module = nn.Identity() if parts else network.stem
        last = len(parts) + 1 == len(network.exits)
        part = ExitStage(stem, layers[before:behind], exit_, dense=network.dense, last=last)
        parts.append(part.eval())
        before = behind
    return parts


def _weigh(exit_: nn.Module, weight: float) -> None:
    """Let an exit's classifier give its logits times ``weight``."""
    (classifier,) = (part for part in exit_.modules() if isinstance(part, Classifier))
    with torch.no_grad():
        classifier.linear.weight.mul_(weight)
        classifier.linear.bias.mul_(weight)
