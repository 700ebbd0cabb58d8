"""torchvision's classifiers as peers: made, timed and trained by our own loop, with our losses."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from nat2deploy.data.sets import ImageData
from nat2deploy.training.finetune import train_network
from nat2deploy.training.loop import LoopSettings

LEARNING_RATES = {
    "mobilenet_v3_small": 0.05,
    "mobilenet_v3_large": 0.05,
    "shufflenet_v2_x0_5": 0.05,
    "shufflenet_v2_x1_0": 0.05,
    "squeezenet1_1": 0.02,
}
"""Peak rates of SGD for batches of 128."""


def new_peer(name: str, classes: int, seed: int) -> nn.Module:
    """A network of torchvision's with random weights."""
    import torchvision

    torch.manual_seed(seed)
    return torchvision.models.get_model(name, num_classes=classes)


def peer_settings(epochs: float, learning_rate: float, *, seed: int, batch_size: int = 128) -> LoopSettings:
    """What fine-tuning does with ours: the same warm-up, weight decay and limit on the gradient."""
    return LoopSettings(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        warmup_epochs=min(1.0, epochs / 10),
        weight_decay=5e-4,
        clip=5.0,
        seed=seed,
    )


def step_seconds(
    network: nn.Module,
    data: ImageData,
    resolution: int,
    *,
    batch_size: int = 128,
    steps: int = 20,
    teacher: nn.Module | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Seconds of one training step, by a few on the spot; the network is left as it was."""
    state = {key: value.clone() for key, value in network.state_dict().items()}
    per_epoch = len(data.train) // batch_size
    for count in (3, steps):  # the first call warms up
        began = clock()
        trial = LoopSettings(epochs=count / per_epoch, learning_rate=1e-4, batch_size=batch_size)
        train_network(network, data, trial, resolution, teacher=teacher)
    took = clock() - began
    network.load_state_dict(state)
    return took / steps


def parameters(network: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())
