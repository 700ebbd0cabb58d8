"""A small network that was really trained, for what 8 bits do to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import SearchSpace

SIDE = 16


@dataclass(frozen=True)
class Trained:
    """A sub-network of the tiny space that tells digits apart, with images that it saw and others.

    ``seen`` and ``unseen`` are float32 [N, 3, 16, 16], ``targets`` those of ``unseen``.
    """

    network: nn.Module
    seen: NDArray[np.float32]
    unseen: NDArray[np.float32]
    targets: NDArray[np.int64]


def train_on_digits(space: SearchSpace) -> Trained:
    """Train the largest sub-network, with squeeze-and-excite, shortcuts and hard swish, for two seconds."""
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32)[:, None] / 8 - 1)
    images = (
        nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    )
    targets = torch.from_numpy(digits.target.astype(np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SubNetwork(plan_network(space, space.largest(SIDE, 0.5), 10)).train()
        optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
        for _ in range(4):
            for batch in torch.randperm(900).split(50):
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(images[batch]), targets[batch]).backward()
                optimiser.step()
    return Trained(network.eval(), images[:1200].numpy(), images[1200:].numpy(), targets[1200:].numpy())
