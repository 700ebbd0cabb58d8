"""PyTorch's optimisers without its compiler, whose import takes as long as all the rest of PyTorch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer


def _eager(method: Any) -> Any:
    """The method as written, without wrappers that tell the compiler something and import it for that."""
    return inspect.unwrap(method)


class _Eager(Optimizer):
    """Methods as PyTorch has them, for training that is not compiled; subclasses bring their ``step``."""

    add_param_group = _eager(Optimizer.add_param_group)
    zero_grad = _eager(Optimizer.zero_grad)
    state_dict = _eager(Optimizer.state_dict)
    load_state_dict = _eager(Optimizer.load_state_dict)


class EagerSGD(_Eager, SGD):
    """``torch.optim.SGD``, the same to the last bit."""

    step = torch.no_grad()(_eager(SGD.step))


class EagerAdamW(_Eager, AdamW):
    """``torch.optim.AdamW``, the same to the last bit."""

    step = torch.no_grad()(_eager(AdamW.step))
