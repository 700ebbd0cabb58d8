"""Quantisation-aware fine-tuning: a network learns to answer with weights and activations of 8 bits.

Each step rounds as the exported file does (see ``simulated_precision``) and passes gradients straight through
the rounding, as in Jacob et al. (2018), section 3. Weights are rounded by output channel before batch norm is
folded: folding scales a channel as a whole, so the steps are the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from nat2deploy.blocks import SubNetwork
from nat2deploy.data.sets import ImageData
from nat2deploy.training.finetune import train_network
from nat2deploy.training.loop import LoopSettings, Progress
from nat2deploy.training.simulated_precision import (
    insert_rounding,
    rounded_weight,
    trace_layers,
    weight_steps,
)

_MOMENTUM = 0.01


def tune_for_int8(
    network: SubNetwork,
    data: ImageData,
    settings: LoopSettings,
    resolution: int,
    *,
    calibration: Iterable[Tensor],
    symmetric: bool,
    recalibrate: Callable[[nn.Module, int], None],
    checkpoint: Path | None = None,
    tag: str = "",
    progress: Progress | None = None,
) -> SubNetwork:
    """Return a float network that was fine-tuned for 8 bits, in evaluation mode; the given one is left alone.

    Args:
        network: to start from.
        data: trained on its training split.
        settings: how long and how fast.
        resolution: in pixels.
        calibration: batches [B, 3, r, r] that show how large activations get at the start.
        symmetric: as ``simulate``.
        recalibrate: ``recalibrate(network, resolution)`` recomputes BN statistics.
        checkpoint: as ``train_network``, like all that follows; the caller removes it when it has stored what
            it makes of the network.
    """
    tuned = copy.deepcopy(network)
    rounded = rounding_network(tuned, calibration, symmetric=symmetric)
    train_network(
        rounded, data, settings, resolution, checkpoint=checkpoint, keep=True, tag=tag, progress=progress
    )
    for module in list(tuned.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    recalibrate(tuned, resolution)
    return tuned.eval()


def rounding_network(network: nn.Module, calibration: Iterable[Tensor], *, symmetric: bool) -> fx.GraphModule:
    """Return a trainable graph on ``network``'s own layers that rounds weights and activations to 8 bits.

    The layers' weights are parametrised until ``remove_parametrizations``; training the graph trains them.
    """
    network.eval()
    traced = trace_layers(network)
    insert_rounding(traced, lambda: _LearntSteps(symmetric))
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        # What lies between a convolution and its batch norm is not there in the exported graph.
        before = node.args[0] if node.op == "call_module" and node.args else None
        if (
            isinstance(modules.get(str(node.target)), _LearntSteps)
            and isinstance(before, fx.Node)
            and isinstance(modules.get(str(before.target)), nn.Conv2d)
            and all(isinstance(modules.get(str(user.target)), nn.BatchNorm2d) for user in node.users)
        ):
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    with torch.no_grad():  # into ranges of inference mode no checkpoint could be read
        for images in calibration:
            traced(images)
    for module in list(traced.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", _RoundedWeight(weight_steps(symmetric)))
        elif isinstance(module, _LearntSteps):
            module.observing = False
    return traced


class _LearntSteps(nn.Module):
    """Rounds to 8 bits; its range is that of the calibration images, and follows that of training slowly."""

    range: Tensor

    def __init__(self, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.observing = True
        self.register_buffer("range", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        seen = torch.stack([x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)])
        if self.observing:
            self.range = torch.stack(
                [torch.minimum(self.range[0], seen[0]), torch.maximum(self.range[1], seen[1])]
            )
            return x
        if self.training:
            self.range = torch.lerp(self.range, seen, _MOMENTUM)
        low, high = self.range.tolist()
        if not math.isfinite(high - low):
            return x * math.nan  # there are no steps; the loss says so, and training ends
        scale = max(-low, high) / 127 if self.symmetric else (high - low) / 255
        if scale < torch.finfo(torch.float32).tiny:
            return x
        zero, lowest = (0, -128) if self.symmetric else (round(-low / scale), 0)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, lowest, lowest + 255)


class _RoundedWeight(nn.Module):
    """A weight as its 8-bit steps, by output channel."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, weight: Tensor) -> Tensor:
        """Any shape to the same."""
        plain = weight.detach()
        return weight + (rounded_weight(plain, self.steps) - plain)
