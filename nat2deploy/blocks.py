"""Plain PyTorch modules of block signatures: what is profiled, extracted, fine-tuned and exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nat2deploy.batch_norm import BatchNorm
from nat2deploy.space.lowering import NetworkPlan, added
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
    return BatchNorm(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


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


class Pointwise(nn.Module):
    """OFAv2's first static branch beside an inverted residual: 1×1 convolution, BN, activation."""

    def __init__(self, signature: BlockSignature) -> None:
        super().__init__()
        s = signature
        self.conv = nn.Conv2d(s.in_channels, s.out_channels, 1, s.stride, bias=False)
        self.bn = batch_norm(s.out_channels)
        self.act = activation(s.activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H/s, W/s]."""
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Transform(nn.Module):
    """OFAv2's second static branch: max-pool if strided, 1×1 if channels change, then BN and activation."""

    def __init__(self, signature: BlockSignature) -> None:
        super().__init__()
        s = signature
        self.pool = nn.MaxPool2d(s.stride, s.stride, ceil_mode=True) if s.stride > 1 else None
        self.conv = nn.Conv2d(s.in_channels, s.out_channels, 1, bias=False) if s.mixes else None
        self.bn = batch_norm(s.out_channels)
        self.act = activation(s.activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H/s, W/s]."""
        if self.pool is not None:
            x = self.pool(x)
        if self.conv is not None:
            x = self.conv(x)
        return self.act(self.bn(x))  # type: ignore[no-any-return]


class Sum(nn.Module):
    """A tensor plus another one of its shape, which a constant stands for: what profiling measures."""

    other: Tensor

    def __init__(self, signature: BlockSignature) -> None:
        super().__init__()
        s = signature
        self.register_buffer("other", torch.ones(1, s.in_channels, s.height, s.width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return x + self.other


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


_MODULES: dict[str, Callable[[BlockSignature], nn.Module]] = {
    "stem": Stem,
    "mbconv": MBConv,
    "pointwise": Pointwise,
    "transform": Transform,
    "add": Sum,
    "head": Head,
    "classifier": Classifier,
}


def build_block(signature: BlockSignature) -> nn.Module:
    """Return the plain module of one signature, with fresh weights."""
    module = _MODULES[signature.kind](signature)
    initialise(module)
    return module


Part = Callable[[Tensor], Tensor]


def run_network(
    images: Tensor, stem: Part, stages: Sequence[Sequence[Part]], exits: Mapping[int, Part], *, dense: bool
) -> list[Tensor]:
    """Run a network's parts as its plan says: the logits [B, classes] of each exit, in order.

    With ``dense``, what follows a stage's layers sees their latest output plus those two or more before it
    (see ``space.lowering.added``).
    """
    logits = []
    x = stem(images)
    for number, layers in enumerate(stages, start=1):
        outputs: list[Tensor] = []
        for position, layer in enumerate(layers):
            x = layer(x)
            outputs.append(x)
            if dense:
                for earlier in added(position):
                    x = x + outputs[earlier]
        if number in exits:
            logits.append(exits[number](x))
    return logits


def weighted(logits: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The sum of exits' logits, each [B, classes], by ``weights`` [exits]; of one exit its own."""
    if len(logits) == 1:
        return logits[0]
    total = logits[0] * weights[0]
    for index in range(1, len(logits)):
        total = total + logits[index] * weights[index]
    return total


def build_exit(signatures: Sequence[BlockSignature]) -> nn.Sequential:
    """The module of one exit: head, then classifier."""
    return nn.Sequential(*(build_block(signature) for signature in signatures))


class LayerBranches(nn.ModuleDict):
    """One layer of a plain network: the sum of its branches, keyed by their kind."""

    def __init__(self, branches: Sequence[BlockSignature]) -> None:
        super().__init__({signature.kind: build_block(signature) for signature in branches})

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H/s, W/s]."""
        first, *others = self.values()
        y: Tensor = first(x)
        for branch in others:
            y = y + branch(x)
        return y


class SubNetwork(nn.Module):
    """A plain network of a plan, which holds nothing that the plan does not have.

    [B, 3, r, r] to logits [B, classes]: with several exits their weighted sum. ``exit_weights`` [exits]
    add up to 1, and are equal unless given.
    """

    exit_weights: Tensor

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__()
        self.dense = plan.dense
        self.stem = nn.Sequential(*(build_block(signature) for signature in plan.stem))
        self.stages = nn.ModuleList(
            nn.ModuleList(LayerBranches(list(layer.values())) for layer in stage) for stage in plan.stages
        )
        self.exits = nn.ModuleDict({str(stage): build_exit(blocks) for stage, blocks in plan.exits.items()})
        weights = torch.full((len(plan.exits),), 1.0 / len(plan.exits))
        if len(plan.exits) > 1:
            self.register_buffer("exit_weights", weights)
        else:  # nothing to keep
            self.exit_weights = weights

    def exit_logits(self, images: Tensor) -> list[Tensor]:
        """[B, 3, r, r] to the logits [B, classes] of each exit, in order."""
        exits = {int(stage): exit_ for stage, exit_ in self.exits.items()}
        return run_network(images, self.stem, self.layers(), exits, dense=self.dense)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, r, r] to [B, classes]."""
        return weighted(self.exit_logits(images), self.exit_weights)

    def layers(self) -> list[list[LayerBranches]]:
        """The layers of each stage."""
        return [list(cast(Iterable[LayerBranches], stage)) for stage in self.stages]

    def blocks(self) -> list[nn.Module]:
        """The modules of the plan's ``blocks``, in the same order."""
        layers = [block for stage in self.layers() for layer in stage for block in layer.values()]
        exits = [block for exit_ in self.exits.values() for block in cast(nn.Sequential, exit_)]
        return [*self.stem, *layers, *exits]


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
        torch.manual_seed(seed % 2**64)  # PyTorch's are of 64 bits
        initialise(module)
