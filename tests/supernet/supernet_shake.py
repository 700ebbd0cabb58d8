"""Weights and statistics that show every mistake: nothing is zero, one or identity."""

import torch
from torch import nn


def shake(module: nn.Module, seed: int = 0) -> None:
    """Draw BN's parameters and statistics, and disturb each kernel transform from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                part.running_mean.uniform_(-0.2, 0.2, generator=generator)
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.uniform_(-0.2, 0.2, generator=generator)
        for name, parameter in module.named_parameters():
            if ".transforms." in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
