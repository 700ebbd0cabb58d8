"""PyTorch's optimisers without its compiler, whose import takes as long as all the rest of PyTorch."""

from __future__ import annotations

from inspect import unwrap

import torch
from torch.optim import SGD, AdamW, Optimizer


class _Eager(Optimizer):
    """Methods without the wrappers that tell the compiler something, and import it for that.

    Subclasses bring their ``step``.
    """

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)


class EagerSGD(_Eager, SGD):
    """``torch.optim.SGD``, the same to the last bit."""

    step = torch.no_grad()(unwrap(SGD.step))


class EagerAdamW(_Eager, AdamW):
    """``torch.optim.AdamW``, the same to the last bit."""

    step = torch.no_grad()(unwrap(AdamW.step))
