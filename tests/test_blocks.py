import warnings

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nat2deploy.blocks import MBConv, SubNetwork, activation, build_block, reset_seeded
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import load_space
from nat2deploy.space.signature import BlockSignature

NANO = load_space("nano")


@st.composite
def blocks(draw):
    """Any block that can be built, small, with odd sizes and channels that are no multiple of 8 too."""
    kind = draw(st.sampled_from(["stem", "mbconv", "head", "classifier"]))
    inside, mid, out = (draw(st.integers(1, 40)) for _ in range(3))
    mid = inside if draw(st.booleans()) else mid
    stride = draw(st.integers(1, 3))
    shortcut = kind == "mbconv" and stride == 1 and draw(st.booleans())
    return BlockSignature(
        kind,
        inside,
        mid,
        inside if shortcut else out,
        draw(st.sampled_from([1, 3, 5, 7])),
        stride,
        kind == "mbconv" and draw(st.booleans()),
        shortcut,
        draw(st.sampled_from(["relu", "hswish", "none"])),
        draw(st.integers(1, 12)),
        draw(st.integers(1, 12)),
    )


@given(blocks())
def test_counts_are_fvcores_and_the_output_has_the_signatures_shape(signature):
    block = build_block(signature).eval()
    images = torch.zeros(1, *signature.input_shape)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        operators = FlopCountAnalysis(block, images).unsupported_ops_warnings(False).by_operator()
    assert signature.macs == int(operators["conv"] + operators["linear"])
    assert signature.params == sum(p.numel() for p in block.parameters())
    spatial = (-(-signature.height // signature.stride), -(-signature.width // signature.stride))
    wanted = (1, signature.out_channels, *(spatial if signature.kind in ("stem", "mbconv") else ()))
    assert block(images).shape == wanted


def test_a_shortcut_adds_the_input():
    with_skip = build_block(BlockSignature("mbconv", 8, 16, 8, 3, 1, True, True, "hswish", 6, 6)).eval()
    without = build_block(BlockSignature("mbconv", 8, 16, 8, 3, 1, True, False, "hswish", 6, 6)).eval()
    without.load_state_dict(with_skip.state_dict())
    images = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(with_skip(images), images + without(images))


def test_squeeze_excite_gates_by_the_hard_sigmoid_of_pooled_channels():
    block = build_block(BlockSignature("mbconv", 8, 16, 8, 3, 1, True, False, "relu", 6, 6))
    assert isinstance(block, MBConv)
    assert block.se is not None
    nn.init.zeros_(block.se.expand.weight)
    nn.init.constant_(block.se.expand.bias, 1.5)
    images = torch.randn(2, 16, 6, 6)
    torch.testing.assert_close(block.se(images), images * (1.5 + 3) / 6)


@pytest.mark.parametrize(
    ("name", "function"), [("relu", nn.ReLU()), ("hswish", nn.Hardswish()), ("none", nn.Identity())]
)
def test_activations_are_what_they_say(name, function):
    images = torch.linspace(-5, 5, 50)
    torch.testing.assert_close(activation(name)(images.clone()), function(images))


def test_a_subnetwork_is_its_blocks_in_order():
    network = SubNetwork(plan_network(NANO, NANO.smallest(), 10)).eval()
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        x = images
        for block in network.blocks():
            x = block(x)
        assert network(images).shape == (2, 10)
        torch.testing.assert_close(network(images), x)


def test_one_network_serves_any_resolution():
    network = SubNetwork(plan_network(NANO, NANO.smallest(28), 10)).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


@settings(max_examples=10)
@given(st.integers(0, 2**31) | st.integers(2**64, 2**70))
def test_seeded_weights_come_from_the_seed_alone(seed):
    one, two = (build_block(BlockSignature.parse("mbconv-i8-m16-o8-k3-s1-se-relu-h8-w8")) for _ in range(2))
    before = torch.get_rng_state()
    reset_seeded(one, seed)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    reset_seeded(two, seed)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, two.get_parameter(name)), name
    reset_seeded(two, seed + 1)
    assert isinstance(one, MBConv)
    assert isinstance(two, MBConv)
    assert not torch.equal(one.depthwise.weight, two.depthwise.weight)


def test_fresh_weights_keep_the_signals_size():
    """Fan-out initialisation: the variance of a convolution's weights is 2 / (outputs × kernel²)."""
    stem = build_block(BlockSignature("stem", 64, 64, 128, 3, 1, False, False, "relu", 8, 8))
    weight = stem.get_parameter("conv.weight")
    assert weight.var().item() == pytest.approx(2 / (128 * 9), rel=0.05)
    linear = build_block(BlockSignature("classifier", 100, 100, 50, 1, 1, False, False, "none", 1, 1))
    assert linear.get_parameter("linear.weight").abs().max().item() <= 0.1
    assert not linear.get_parameter("linear.bias").any()
