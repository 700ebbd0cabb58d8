"""What a network answers in fewer bits, simulated in floats before there is an engine.

Values are rounded to those that the format has, as in Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference" (2018), section 3; sums keep their precision. The
int8 form is that of the exported ONNX file: weights by output channel, activations by the range that
calibration sees. Biases, which have 32 bits there, are left as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nat2deploy.precision import Precision

CALIBRATION_IMAGES = 256
"""Of the training split: what activations are calibrated on."""

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
# What the exported graph leaves out, or gives the steps of its input.
_SAME_VALUES = (nn.Identity, nn.MaxPool2d)
_RELU = (torch.relu, F.relu)


def simulate(
    network: nn.Module, precision: Precision, calibration: Iterable[Tensor], *, symmetric: bool = False
) -> nn.Module:
    """Return a network in evaluation mode that answers as ``network`` does in a precision.

    Args:
        network: a plain one, BN recalibrated; left as it was.
        precision: fp32 gives the network itself.
        calibration: batches of images [B, 3, r, r] on the network's device that show how large activations
            get, for int8; not looked at otherwise.
        symmetric: int8 as GPU engines take it, zero being 0 and weights of 8 bits; else activations are uint8
            with a zero point, and weights use 7 bits.
    """
    network.eval()
    if precision == "fp32":
        return network
    traced = _fold(copy.deepcopy(network))
    if precision != "int8":
        dtype = _HALF[precision]
        insert_rounding(traced, lambda: _Cast(dtype))
        for parameter in traced.parameters():
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)
        return traced
    insert_rounding(traced, lambda: _Steps(symmetric))
    with torch.inference_mode():
        for images in calibration:
            traced(images)
    for module in traced.modules():
        if isinstance(module, _Steps):
            module.observing = False
        elif isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.weight.data = rounded_weight(module.weight.data, weight_steps(symmetric))
    return traced


class _Cast(nn.Module):
    """Rounds to a floating-point format of 16 bits."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x.to(self.dtype).to(x.dtype)


class _Steps(nn.Module):
    """Rounds to 8 bits over the range of values that went through while ``observing``."""

    def __init__(self, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.observing = self.finite = True
        self.low = self.high = 0.0  # zero always has a value of its own

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if self.observing:
            low, high = float(x.min()), float(x.max())
            self.finite = self.finite and math.isfinite(low) and math.isfinite(high)
            self.low, self.high = min(self.low, low), max(self.high, high)
            return x
        if not self.finite:
            return torch.full_like(x, math.nan)  # there are no steps; a broken network is to stay one
        scale, zero = self.steps
        lowest = -128 if self.symmetric else 0
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, lowest, lowest + 255)

    @property
    def steps(self) -> tuple[float, int]:
        """The step's size, and which step is 0."""
        scale = max(-self.low, self.high) / 127 if self.symmetric else (self.high - self.low) / 255
        if scale < torch.finfo(torch.float32).tiny:
            return 1.0, 0
        return scale, 0 if self.symmetric else round(-self.low / scale)


class _Tracer(fx.Tracer):
    """Follows a network down to its layers; ours of normalisation is one, too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is an operator."""
        return isinstance(m, nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def trace_layers(network: nn.Module) -> fx.GraphModule:
    """Return a network's graph of layers, on its own modules."""
    return fx.GraphModule(network, _Tracer().trace(network))


def _fold(network: nn.Module) -> fx.GraphModule:
    """Return a network's graph, with BN folded into the convolutions before it."""
    traced = trace_layers(network)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        if isinstance(conv, nn.Conv2d) and len(before.users) == 1:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    return traced


def insert_rounding(traced: fx.GraphModule, rounding: Callable[[], nn.Module]) -> None:
    """Let every value that an operator takes or gives be rounded."""
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if not _is_rounded(node, modules):
            continue
        name = f"rounding_{node.name}"
        traced.add_submodule(name, rounding())
        with traced.graph.inserting_after(node):
            rounded = traced.graph.call_module(name, (node,))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user, own=rounded: user is not own)
    traced.recompile()


def _is_rounded(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module" and isinstance(modules[str(node.target)], _SAME_VALUES):
        return False
    # Rounding behind a ReLU alone clips as it does: the two are one operator.
    users = list(node.users)
    if len(users) == 1 and _is_relu(users[0], modules):
        return False
    return node.op in ("placeholder", "call_module", "call_function")


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.ReLU)
    return node.op == "call_function" and node.target in _RELU


def weight_steps(symmetric: bool) -> int:
    """How many steps weights have on either side of 0: 7 bits of them on CPUs, as the export has."""
    return 127 if symmetric else 64


def rounded_weight(weight: Tensor, steps: int) -> Tensor:
    """Round weights to ``steps`` on either side of 0, by output channel; those of a norm share theirs."""
    rows = weight.flatten(1) if weight.ndim > 1 else weight[None]
    scale = rows.abs().amax(1) / steps
    scale = torch.where(scale < torch.finfo(weight.dtype).tiny, torch.ones_like(scale), scale)
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(rows, scale, zero, 0, -steps, steps)
    return rounded.reshape(weight.shape)
