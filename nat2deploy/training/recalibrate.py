"""BN statistics of one sub-network, recomputed on training images before it is judged."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nat2deploy.batch_norm import own_batch


def recalibrate(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Replace every BN's running statistics by their mean over batches of ``images`` [B, 3, r, r].

    Inherited statistics belong to all sub-networks at once and are wrong for each (Cai et al., 2020).
    The network is left in evaluation mode; weights do not change.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
        norm.train()
    # Where several processes train together, each of them sees all of these images.
    with torch.no_grad(), own_batch():
        for batch in images:
            network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
