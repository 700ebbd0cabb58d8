"""Plain PyTorch modules of block signatures: what is profiled, extracted, fine-tuned and exported."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nat2deploy.space.signature import Activation, BlockSignature

BN_EPS = 1e-5
BN_MOMENTUM = 0.1


def activation(name: Activation) -> nn.Module:
    """Return the activation module of a signature's name."""
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.Hardswish(inplace=True) if name == "hswish" else nn.Identity()


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """BN with Once-For-All's momentum and epsilon."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def _pool(x: Tensor) -> Tensor:
    """Global average; exports as one ONNX operator, where ``mean`` would cost layout changes."""
    return nn.functional.adaptive_avg_pool2d(x, 1)


class Stem(nn.Module):
    """Convolution, BN, activation: [B, 3, H, W] to [B, C, H/s, W/s]."""

    def __init__(self, signature: BlockSignature) -> None:
        super().__init__()
        s = signature
        self.conv = nn.Conv2d(s.in_channels, s.out_channels, s.kernel, s.stride, s.kernel // 2, bias=False)
        self.bn = batch_norm(s.out_channels)
        self.act = activation(s.activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H/s, W/s]."""
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Channel gates from the pooled input (MobileNetV3: ReLU inside, hard sigmoid outside)."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, inside, 1)
        self.expand = nn.Conv2d(inside, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        gates = self.expand(torch.relu(self.reduce(_pool(x))))
        return x * nn.functional.hardsigmoid(gates)


class MBConv(nn.Module):
    """Inverted residual: 1×1 expansion, depthwise k×k, optional squeeze-and-excite, 1×1 projection."""

    def __init__(self, signature: BlockSignature) -> None:
        super().__init__()
        s = signature
        self.expand = nn.Conv2d(s.in_channels, s.mid_channels, 1, bias=False) if s.expands else None
        self.expand_bn = batch_norm(s.mid_channels) if s.expands else None
        self.depthwise = nn.Conv2d(
            s.mid_channels,
            s.mid_channels,
            s.kernel,
            s.stride,
            s.kernel // 2,
            groups=s.mid_channels,
            bias=False,
        )
        self.depthwise_bn = batch_norm(s.mid_channels)
        self.se = SqueezeExcite(s.mid_channels, s.se_channels) if s.se else None
        self.project = nn.Conv2d(s.mid_channels, s.out_channels, 1, bias=False)
        self.project_bn = batch_norm(s.out_channels)
        self.act = activation(s.activation)
        self.shortcut = s.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H/s, W/s]."""
        y = x
        if self.expand is not None and self.expand_bn is not None:
            y = self.act(self.expand_bn(self.expand(y)))
        y = self.act(self.depthwise_bn(self.depthwise(y)))
        if self.se is not None:
            y = self.se(y)
        y = self.project_bn(self.project(y))
        return x + y if self.shortcut else y  # type: ignore[no-any-return]


class Head(nn.Module):
    """1×1 with BN, global average pool, 1×1 without BN: [B, C, H, W] to [B, features]."""

    def __init__(self, signature: BlockSignature) -> None:
        super().__init__()
        s = signature
        self.expand = nn.Conv2d(s.in_channels, s.mid_channels, 1, bias=False)
        self.expand_bn = batch_norm(s.mid_channels)
        self.mix = nn.Conv2d(s.mid_channels, s.out_channels, 1, bias=False)
        self.act = activation(s.activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, features]."""
        y: Tensor = self.act(self.expand_bn(self.expand(x)))
        mixed: Tensor = self.act(self.mix(_pool(y)))
        return mixed.flatten(1)


class Classifier(nn.Module):
    """Linear layer: [B, features] to logits [B, classes]."""

    def __init__(self, signature: BlockSignature) -> None:
        super().__init__()
        self.linear = nn.Linear(signature.in_channels, signature.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] to [B, classes]."""
        return self.linear(x)  # type: ignore[no-any-return]


_MODULES = {"stem": Stem, "mbconv": MBConv, "head": Head, "classifier": Classifier}


def build_block(signature: BlockSignature) -> nn.Module:
    """Return the plain module of one signature, with fresh weights."""
    module: nn.Module = _MODULES[signature.kind](signature)
    initialise(module)
    return module


class SubNetwork(nn.Sequential):
    """A plain network, one module a signature: [B, 3, r, r] to logits [B, classes]."""

    def __init__(self, signatures: Iterable[BlockSignature]) -> None:
        super().__init__(*(build_block(signature) for signature in signatures))


def initialise(module: nn.Module) -> None:
    """Draw convolutions by fan-out (He et al., 2015), linear layers by a small uniform; BN to identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.uniform_(part.weight, -(part.in_features**-0.5), part.in_features**-0.5)
            nn.init.zeros_(part.bias)


def reset_seeded(module: nn.Module, seed: int) -> None:
    """Draw the module's weights anew from ``seed`` alone; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(module)
