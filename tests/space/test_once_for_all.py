"""``ofa-mbv3`` is the Once-For-All space: compared layer for layer with the released package ``ofa``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import plan_network, total_params
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space

if TYPE_CHECKING:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

OFA = load_space("ofa-mbv3")
CLASSES = 100


@pytest.fixture(scope="module", params=OFA.widths)
def width(request) -> float:
    return request.param


@pytest.fixture(scope="module")
def peer(width) -> OFAMobileNetV3:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3  # takes seconds

    network = OFAMobileNetV3(
        n_classes=CLASSES,
        dropout_rate=0.0,
        width_mult=width,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[2, 3, 4],
    )
    generator = torch.Generator().manual_seed(3)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_var, part.weight.data):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (part.running_mean, part.bias.data):
                tensor.uniform_(-0.2, 0.2, generator=generator)
    return network.eval()


def released(peer, architecture: Architecture) -> nn.Module:
    """The peer's sub-network, chosen by its own 20-value configuration."""
    pad = [[*stage, *[stage[0]] * (4 - len(stage))] for stage in architecture.stages]
    layers = [layer for stage in pad for layer in stage]
    peer.set_active_subnet(
        ks=[layer.kernel for layer in layers],
        e=[int(layer.expansion) for layer in layers],
        d=list(architecture.depths),
    )
    return peer.get_active_subnet(preserve_weight=True).eval()


def drawn(width: float) -> list[Architecture]:
    encoding = IntegerEncoding(OFA.restrict(resolutions=(128,), widths=(width,)))
    return random_architectures(encoding, np.random.default_rng(11), 6)


def layers_of(network: nn.Module) -> list[tuple]:
    """What tells layers apart, in the order in which they run."""
    return [
        (tuple(part.weight.shape), part.stride, part.padding, part.groups, part.bias is not None)
        if isinstance(part, nn.Conv2d)
        else (tuple(part.weight.shape), part.bias is not None)
        for part in network.modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    ]


def test_the_draw_shows_every_choice(width):
    architectures = drawn(width)
    assert {depth for a in architectures for depth in a.depths} == set(OFA.depths)
    layers = [layer for a in architectures for stage in a.stages for layer in stage]
    assert {layer.kernel for layer in layers} == set(OFA.kernels)
    assert {layer.expansion for layer in layers} == set(OFA.expansions)


def test_subnetworks_have_the_same_layers_and_parameters(peer, width):
    ends = [OFA.smallest(128, width), OFA.largest(128, width)]
    for architecture in (*ends, *drawn(width)):
        theirs = released(peer, architecture)
        plan = plan_network(OFA, architecture, CLASSES)
        assert total_params(plan.signatures) == sum(p.numel() for p in theirs.parameters())
        assert layers_of(SubNetwork(plan)) == layers_of(theirs)


def test_with_the_same_weights_subnetworks_compute_the_same(peer, width):
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for architecture in drawn(width)[:3]:
        theirs = released(peer, architecture)
        ours = SubNetwork(plan_network(OFA, architecture, CLASSES)).eval()
        ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
        with torch.no_grad():
            wanted = theirs(images)
            assert wanted.std() > 1e-3
            torch.testing.assert_close(ours(images), wanted, rtol=1e-4, atol=1e-5)
