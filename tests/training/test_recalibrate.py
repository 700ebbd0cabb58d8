"""BN statistics come from the data and from nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.lowering import plan_network
from nat2deploy.training.recalibrate import recalibrate


def one_layer() -> nn.Sequential:
    """A 1×1 convolution of known weights and BN with wrong statistics."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2, momentum=0.1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]).view(2, 3, 1, 1))
        network[1].running_mean.fill_(7.0)
        network[1].running_var.fill_(9.0)
    return network


def test_statistics_are_those_of_the_data_by_hand():
    images = [torch.randn(4, 3, 5, 5) + 1.0 for _ in range(3)]
    network = one_layer()
    recalibrate(network, images)
    means, variances = [], []
    for batch in images:
        r, g, b = batch.unbind(1)
        outputs = torch.stack([r + 2 * g, 3 * b - g])  # [2, 4, 5, 5]
        means.append(outputs.mean((1, 2, 3)))
        variances.append(outputs.flatten(1).var(1, unbiased=True))
    torch.testing.assert_close(network[1].running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(network[1].running_var, torch.stack(variances).mean(0))


def test_one_batch_makes_the_output_of_that_batch_normal():
    images = torch.randn(64, 3, 6, 6) * 3 + 2
    network = one_layer()
    recalibrate(network, [images])
    with torch.no_grad():
        outputs = network(images)
    torch.testing.assert_close(outputs.mean((0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs.std((0, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)


@pytest.fixture
def network(space) -> SubNetwork:
    return SubNetwork(plan_network(space, space.largest(), 10))


def test_weights_and_momenta_stay_and_the_network_is_ready_to_judge(network):
    before = copy.deepcopy(network)
    for number, norm in enumerate(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 0.01 * (number + 1)
    network.train()
    recalibrate(network, [torch.randn(8, 3, 16, 16)])
    for (name, parameter), old in zip(network.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, old), name
        assert parameter.grad is None
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.01 * (i + 1) for i in range(len(norms))]
    assert not any(module.training for module in network.modules())
    assert all(norm.running_mean.abs().sum() > 0 for norm in norms)


def test_what_the_statistics_were_before_leaves_no_trace(network):
    images = [torch.randn(8, 3, 16, 16) for _ in range(2)]
    other = copy.deepcopy(network)
    for norm in (m for m in other.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.fill_(5.0)
    recalibrate(network, images)
    recalibrate(other, [torch.rand(8, 3, 16, 16) * 9])
    recalibrate(other, images)
    for one, two in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)


def test_only_bn_learns_from_the_images():
    network = nn.Sequential(one_layer(), nn.Dropout(0.5))
    images = [torch.ones(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)]
    recalibrate(network, images)
    torch.testing.assert_close(network[0][1].running_mean, torch.tensor([1.5, 1.0]))
    assert not network[1].training
