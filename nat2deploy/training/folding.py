"""Batch normalisation folded into the convolutions before it: the same answers, in less time."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from nat2deploy.blocks import Head, MBConv, Pointwise, Stem, Transform

Network = TypeVar("Network", bound=nn.Module)

# The convolutions of each block and the BN behind each, by the names that the block has for them.
_PAIRS = {
    Stem: (("conv", "bn"),),
    MBConv: (("expand", "expand_bn"), ("depthwise", "depthwise_bn"), ("project", "project_bn")),
    Pointwise: (("conv", "bn"),),
    Transform: (("conv", "bn"),),
    Head: (("expand", "expand_bn"),),
}


def folded(network: Network) -> Network:
    """Return a copy of a network of blocks, in evaluation mode, without BN behind convolutions.

    Its logits are the network's but for rounding: each channel is scaled once, in the weights.
    """
    network = copy.deepcopy(network).eval()
    for block in network.modules():
        for conv_name, norm_name in _PAIRS.get(type(block), ()):
            conv, norm = getattr(block, conv_name), getattr(block, norm_name)
            if conv is not None:  # else nothing to fold into: BN stays
                _fold(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm))
                setattr(block, norm_name, nn.Identity())
    return network


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
