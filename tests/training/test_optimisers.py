"""Optimisers without PyTorch's compiler take the very steps of PyTorch's own."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from nat2deploy.training.optimisers import EagerAdamW, EagerSGD

KINDS = [
    (EagerSGD, torch.optim.SGD, {"lr": 0.001, "momentum": 0.9, "nesterov": True}),
    (EagerAdamW, torch.optim.AdamW, {"lr": 0.01}),
]


def trained(kind, options, steps: int, begun=None):
    """The weights and the optimiser's state after so many steps, behind those of ``begun``."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = kind(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], **options
    )
    if begun is not None:
        network.load_state_dict(begun[0])
        optimiser.load_state_dict(begun[1])
    for step in range(steps):
        optimiser.zero_grad(set_to_none=True)
        network(torch.randn(8, 5, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimiser.step()
    return network.state_dict(), optimiser.state_dict()


def flat(value):
    if isinstance(value, dict):
        return {f"{key}/{name}": x for key, inner in value.items() for name, x in flat(inner).items()}
    return {"": value}


@pytest.mark.parametrize(("ours", "theirs", "options"), KINDS)
def test_its_steps_and_what_it_stores_are_pytorchs(ours, theirs, options):
    found, expected = trained(ours, options, 5), trained(theirs, options, 5)
    for mine, other in zip(found, expected, strict=True):
        mine, other = flat(mine), flat(other)
        assert list(mine) == list(other)
        for name, value in other.items():
            assert torch.equal(mine[name], value) if torch.is_tensor(value) else mine[name] == value, name
    on, from_theirs = trained(ours, options, 3, found), trained(theirs, options, 3, expected)
    assert all(torch.equal(on[0][name], value) for name, value in from_theirs[0].items())
    assert not torch.equal(on[0]["0.weight"], found[0]["0.weight"])


@pytest.mark.parametrize(("ours", "theirs", "options"), KINDS)
def test_the_compiler_is_not_imported(monkeypatch, ours, theirs, options):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # to import it fails
    with pytest.raises(ImportError):
        trained(theirs, options, 1)
    trained(ours, options, 1, trained(ours, options, 1))
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        assert not hasattr(getattr(ours, name), "__wrapped__")
