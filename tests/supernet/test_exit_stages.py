import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nat2deploy.blocks import SubNetwork
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.exit_stages import exit_stages

sys.path.insert(0, str(Path(__file__).parents[1] / "space"))
from space_strategies import architectures
from supernet_shake import shake

SPACE = load_space("nano-me-dp").restrict(resolutions=(28,), widths=(1.0,))
SEVERAL = architectures(SPACE).filter(lambda architecture: len(architecture.exits) > 1)


def network_of(architecture, seed: int) -> SubNetwork:
    torch.manual_seed(seed)
    network = SubNetwork(plan_network(SPACE, architecture, 10))
    shake(network, seed)
    weights = torch.rand(len(architecture.exits)) + 0.1
    network.exit_weights.copy_(weights / weights.sum())
    return network.eval()


@settings(max_examples=25)
@given(SEVERAL, st.integers(0, 100))
def test_the_parts_of_any_network_add_up_to_it_exit_by_exit(architecture, seed):
    network = network_of(architecture, seed)
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole, exits = network(images), network.exit_logits(images)
        x, total = images, torch.zeros_like(whole)
        for part, logits, weight in zip(exit_stages(network), exits, network.exit_weights, strict=True):
            found = part(x)
            own, x = (found, None) if part.last else found
            torch.testing.assert_close(own, logits * weight, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
            total = total + own
    assert x is None
    torch.testing.assert_close(total, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_the_network_itself_stays_as_it_was():
    network = network_of(SPACE.largest(28, 1.0), 0).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    parts = exit_stages(network)
    assert len(parts) == 4
    assert network.training
    assert not any(module.training for part in parts for module in part.modules())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_the_parts_hold_each_weight_of_the_network_once():
    network = network_of(SPACE.largest(28, 1.0), 0)
    parts = exit_stages(network)
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert count == sum(p.numel() for p in network.parameters())


def test_a_network_with_one_exit_has_no_parts():
    space = load_space("nano")
    network = SubNetwork(plan_network(space, space.smallest(28, 1.0), 10))
    with pytest.raises(UserError, match=r"has one exit.*--method aep --prune none.*kept as it was"):
        exit_stages(network)
