"""Batch normalisation that sees the whole batch when several processes hold a part of it each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Ranks(Protocol):
    """The processes that hold a part of the batch each."""

    def gather(self, row: Tensor) -> Tensor:
        """[n] of this process to [processes, n], the same in all of them."""

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of tensors of one shape, the same in all of them."""


_ranks: ContextVar[Ranks | None] = ContextVar("ranks of batch normalisation", default=None)


@contextmanager
def own_batch() -> Iterator[None]:
    """Inside, also within ``whole_batch``, each process takes statistics over what it holds itself."""
    token = _ranks.set(None)
    try:
        yield
    finally:
        _ranks.reset(token)


@contextmanager
def whole_batch(ranks: Ranks) -> Iterator[None]:
    """Inside, normalisation in training mode takes its statistics over the batches of all ``ranks``.

    Every process must run the same layers in the same order, forward and backward. What flows
    back to an input is the gradient of the sum of all processes' losses.
    """
    token = _ranks.set(ranks)
    try:
        yield
    finally:
        _ranks.reset(token)


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d``, which inside ``whole_batch`` in training mode sees the batches of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        ranks = _ranks.get() if self.training else None
        if ranks is None:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        return _normalise_whole(
            x, self.running_mean, self.running_var, self.weight, self.bias, momentum, self.eps, ranks
        )


def normalise(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """``torch.nn.functional.batch_norm``, which inside ``whole_batch`` sees the batches of all processes.

    ``x`` is [B, C, H, W], all others [C]; in training mode the running statistics are updated in place.
    """
    ranks = _ranks.get() if training else None
    if ranks is None:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _normalise_whole(x, running_mean, running_var, weight, bias, momentum, eps, ranks)


def _normalise_whole(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float,
    eps: float,
    ranks: Ranks,
) -> Tensor:
    mean, squares, count = _statistics(x.detach(), ranks)
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(squares / (count - 1), momentum)  # unbiased, as PyTorch's
    y: Tensor = _Normalised.apply(x, weight, bias, mean, squares / count, count, eps, ranks)
    return y


def _statistics(x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Of all batches: mean [C], sum of squared differences from it [C], and values a channel [1].

    Each process's own mean and squares are combined (Chan et al., 1979): no difference of large sums.
    """
    variance, mean = torch.var_mean(_full(x), dim=(0, 2, 3), correction=0)
    values = mean.new_full((1,), x.numel() / x.shape[1])
    rows = ranks.gather(torch.cat([values, mean, variance * values]))
    counts, means, squares = torch.split(rows, [1, len(mean), len(mean)], dim=1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    return mean, (squares + counts * (means - mean).square()).sum(0), count


class _Normalised(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps) * weight + bias``; mean and variance are functions of ``x``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        ranks: Ranks,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.ranks = ranks
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        inside = _full(gradient)
        centred = _full(x) - _wide(mean)
        bias_gradient = inside.sum((0, 2, 3))
        weight_gradient = (inside * centred).sum((0, 2, 3)) * scale
        # Every value of every process moved the statistics.
        of_bias, of_weight = (ctx.ranks.add(torch.stack([bias_gradient, weight_gradient])) / count).unbind()
        moved = inside - _wide(of_bias) - centred * _wide(scale * of_weight)
        x_gradient = (moved * _wide(scale * weight)).to(x.dtype)
        return x_gradient, weight_gradient, bias_gradient, None, None, None, None, None


def _full(x: Tensor) -> Tensor:
    """At least single precision, in which statistics are taken."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _wide(values: Tensor) -> Tensor:
    """[C] to [1, C, 1, 1]."""
    return values.view(1, -1, 1, 1)
