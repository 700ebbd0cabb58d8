"""The elastic layer: one set of weights from which every kernel, expansion and branch is a slice.

Kernels: a smaller one is the centre of the next larger through a learned linear map; expansions: the
first channels (Cai et al., 2020, section 3.3). Branches: OFAv2's static ones stand beside the inverted
residual, and any of the three are summed. What is active is an argument of each call, never state.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nat2deploy.batch_norm import normalise
from nat2deploy.blocks import BN_EPS, BN_MOMENTUM, LayerBranches, MBConv, activation, build_block
from nat2deploy.space.architecture import MAIN
from nat2deploy.space.signature import BlockSignature


class ElasticLayer(nn.Module):
    """A layer of the super-network: an elastic inverted residual, and static branches beside it.

    ``branches`` are the largest layer's, as bits; ``kernels`` are the choices, ascending.
    """

    def __init__(self, branches: Mapping[int, BlockSignature], kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.residual = ElasticMBConv(branches[MAIN], kernels)
        self.static = nn.ModuleDict(
            {block.kind: build_block(block) for bit, block in branches.items() if bit != MAIN}
        )

    def forward(self, x: Tensor, active: Mapping[int, BlockSignature]) -> Tensor:
        """[B, in, H, W] to [B, out, H/s, W/s]: the sum of the active branches."""
        outputs = [
            self.residual(x, block.kernel, block.mid_channels) if bit == MAIN else self.static[block.kind](x)
            for bit, block in active.items()
        ]
        y: Tensor = outputs[0]
        for output in outputs[1:]:
            y = y + output
        return y

    def slice_into(self, layer: LayerBranches) -> None:
        """Copy the active slice into a plain layer, whose branches and shapes say what is active."""
        for kind, block in layer.items():
            if isinstance(block, MBConv):
                self.residual.slice_into(block)
            else:
                block.load_state_dict(self.static[kind].state_dict())


class ElasticMBConv(nn.Module):
    """An inverted residual whose kernel and middle channels are chosen at each call.

    ``signature`` is the largest block; ``kernels`` are the choices, ascending. The plain largest block
    ``full`` holds the weights; ``transforms`` the maps from each kernel size to the next smaller.
    """

    def __init__(self, signature: BlockSignature, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.full = MBConv(signature)
        self.act = activation(signature.activation)
        self.kernels = kernels
        self.stride = signature.stride
        self.transforms = nn.ParameterDict(
            {f"{big}to{small}": nn.Parameter(torch.eye(small**2)) for small, big in _steps(kernels)}
        )

    def depthwise_weight(self, kernel: int, channels: int) -> Tensor:
        """The depthwise filters [channels, 1, kernel, kernel]."""
        weight = self.full.depthwise.weight[:channels]
        for small, big in reversed(_steps(self.kernels)):
            if small < kernel:
                break
            edge = (big - small) // 2
            centre = weight[:, :, edge : big - edge, edge : big - edge].reshape(channels, small**2)
            weight = F.linear(centre, self.transforms[f"{big}to{small}"]).view(channels, 1, small, small)
        return weight

    def forward(self, x: Tensor, kernel: int, channels: int) -> Tensor:
        """[B, in, H, W] to [B, out, H/s, W/s] with a kernel size and that many middle channels."""
        full, training = self.full, self.training
        y = x
        # A block whose middle is as wide as its input has no expansion (BlockSignature.expands).
        if full.expand is not None and full.expand_bn is not None and channels != x.shape[1]:
            y = F.conv2d(y, full.expand.weight[:channels])
            y = self.act(_batch_norm(y, full.expand_bn, channels, training))
        weight = self.depthwise_weight(kernel, channels)
        y = F.conv2d(y, weight, None, self.stride, kernel // 2, 1, channels)
        y = self.act(_batch_norm(y, full.depthwise_bn, channels, training))
        if full.se is not None:
            y = y * F.hardsigmoid(self._gates(y, channels))
        y = F.conv2d(y, full.project.weight[:, :channels])
        y = _batch_norm(y, full.project_bn, y.shape[1], training)
        return x + y if full.shortcut else y

    def _gates(self, y: Tensor, channels: int) -> Tensor:
        assert self.full.se is not None
        inside = _se_channels(channels)
        reduce, expand = self.full.se.reduce, self.full.se.expand
        assert reduce.bias is not None and expand.bias is not None
        pooled = y.mean((2, 3), keepdim=True)
        squeezed = torch.relu(F.conv2d(pooled, reduce.weight[:inside, :channels], reduce.bias[:inside]))
        return F.conv2d(squeezed, expand.weight[:channels, :inside], expand.bias[:channels])

    def slice_into(self, block: MBConv) -> None:
        """Copy the active slice into a plain block, whose shapes say what is active."""
        sources = dict((*self.full.named_parameters(), *self.full.named_buffers()))
        channels = block.depthwise.out_channels
        with torch.no_grad():
            for name, held in (*block.named_parameters(), *block.named_buffers()):
                if name == "depthwise.weight":
                    held.copy_(self.depthwise_weight(block.depthwise.kernel_size[0], channels))
                else:
                    held.copy_(sources[name][tuple(slice(size) for size in held.shape)])

    def sort_channels(self) -> None:
        """Order middle channels by the L1 norm of the projection's weights, largest first.

        The function of the full block is unchanged; slices then keep what matters most (Cai et al.,
        2020, section 3.3). Inside squeeze-and-excite, hidden channels are ordered the same way.
        """
        full = self.full
        if full.expand is None or full.expand_bn is None:
            return
        with torch.no_grad():
            order = full.project.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
            full.project.weight.copy_(full.project.weight[:, order])
            full.depthwise.weight.copy_(full.depthwise.weight[order])
            full.expand.weight.copy_(full.expand.weight[order])
            for bn in (full.depthwise_bn, full.expand_bn):
                for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
                    assert tensor is not None
                    tensor.copy_(tensor[order])
            if full.se is not None:
                reduce, expand = full.se.reduce, full.se.expand
                assert reduce.bias is not None and expand.bias is not None
                expand.weight.copy_(expand.weight[order])
                expand.bias.copy_(expand.bias[order])
                reduce.weight.copy_(reduce.weight[:, order])
                inside = expand.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
                reduce.weight.copy_(reduce.weight[inside])
                reduce.bias.copy_(reduce.bias[inside])
                expand.weight.copy_(expand.weight[:, inside])


def _steps(kernels: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs (small, big) of neighbouring kernel sizes, ascending."""
    return list(itertools.pairwise(kernels))


def _se_channels(channels: int) -> int:
    return BlockSignature("mbconv", 0, channels, 0, 1, 1, True, False, "relu", 1, 1).se_channels


def _batch_norm(y: Tensor, bn: nn.BatchNorm2d, channels: int, training: bool) -> Tensor:
    assert bn.running_mean is not None and bn.running_var is not None
    return normalise(
        y,
        bn.running_mean[:channels],
        bn.running_var[:channels],
        bn.weight[:channels],
        bn.bias[:channels],
        training,
        BN_MOMENTUM,
        BN_EPS,
    )
