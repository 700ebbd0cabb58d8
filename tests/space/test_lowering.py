import warnings

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from space_strategies import architectures

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import every_signature, lower, scaled, stage_sizes, total_macs, total_params
from nat2deploy.space.search_space import load_space

NANO, OFA = load_space("nano"), load_space("ofa-mbv3")


def counted(network, resolution) -> int:
    """Multiply-accumulates of convolutions and linear layers, as fvcore counts them from a trace."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(network.eval(), torch.zeros(1, 3, resolution, resolution))
        operators = analysis.unsupported_ops_warnings(False).by_operator()
    return int(operators["conv"] + operators["linear"])


def check_counts(space, architecture, classes) -> None:
    signatures = lower(space, architecture, classes)
    network = SubNetwork(signatures)
    assert total_macs(signatures) == counted(network, architecture.resolution)
    assert total_params(signatures) == sum(p.numel() for p in network.parameters())
    for signature, block in zip(signatures, network, strict=True):
        assert signature.params == sum(p.numel() for p in block.parameters())


@settings(max_examples=12)
@given(architectures(NANO), st.sampled_from([2, 10]))
def test_counts_of_nano_are_fvcores(architecture, classes):
    check_counts(NANO, architecture, classes)


@settings(max_examples=6)
@given(architectures(OFA))
def test_counts_of_ofa_are_fvcores(architecture):
    check_counts(OFA, architecture, 1000)


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_counts_of_a_users_own_space_are_fvcores(tiny_space, end):
    for resolution in tiny_space.resolutions:
        for width in tiny_space.widths:
            check_counts(tiny_space, getattr(tiny_space, end)(resolution, width), 7)


def test_nat_m1_has_its_published_counts():
    digits = [int(digit) for digit in "11001440551052208877"]
    encoding = IntegerEncoding(OFA.restrict(resolutions=(224,), widths=(1.0,)))
    signatures = lower(OFA, encoding.decode([0, 0, *digits]), 1000)
    assert total_macs(signatures) == pytest.approx(225e6, rel=0.02)
    assert total_params(signatures) == pytest.approx(6.0e6, rel=0.02)


@given(st.sampled_from([NANO, OFA]).flatmap(lambda s: st.tuples(st.just(s), architectures(s))))
def test_each_block_takes_what_the_one_before_gives(pair):
    space, architecture = pair
    signatures = lower(space, architecture, 10)
    assert [s.kind for s in signatures[::-1][:2]] == ["classifier", "head"]
    assert len(signatures) == 4 + sum(architecture.depths)
    channels, size = 3, architecture.resolution
    for signature in signatures[:-1]:
        assert signature.in_channels == channels
        assert signature.height == signature.width == size
        channels, size = signature.out_channels, -(-size // signature.stride)
        assert not signature.shortcut or (signature.in_channels, signature.stride) == (channels, 1)
    assert signatures[-1].in_channels == channels
    assert signatures[-1].out_channels == 10


def test_once_for_all_widths_and_sizes_are_the_published():
    w10 = lower(OFA, OFA.largest(224, 1.0), 1000)
    assert [s.out_channels for s in w10[:2]] == [16, 16]
    assert [s.out_channels for s in w10[2:-2:4]] == [24, 40, 80, 112, 160]
    assert [s.stride for s in w10[2:-2:4]] == [2, 2, 2, 1, 2]
    assert [s.se for s in w10[2:-2:4]] == [False, True, False, True, True]
    assert [s.activation for s in w10[2:-2:4]] == ["relu", "relu", "hswish", "hswish", "hswish"]
    assert (w10[-2].mid_channels, w10[-2].out_channels) == (960, 1280)
    assert stage_sizes(OFA, 224) == (112, 56, 28, 14, 14, 7)
    assert [s.shortcut for s in w10[2:6]] == [False, True, True, True]
    assert scaled(112, 1.2) == 136


@given(st.sampled_from([NANO, OFA]).flatmap(lambda s: st.tuples(st.just(s), architectures(s))))
def test_every_block_of_every_architecture_is_listed(pair):
    space, architecture = pair
    fewer = space.restrict(resolutions=(architecture.resolution,))
    listed = list(every_signature(fewer, (10, 1000)))
    assert len(listed) == len(set(listed))
    assert set(lower(space, architecture, 10)) <= set(listed)
    assert set(lower(space, architecture, 1000)) <= set(listed)


def test_only_blocks_of_some_architecture_are_listed(tiny_space):
    fewer = tiny_space.restrict(resolutions=(16,), widths=(1.0,))
    # stem, first block, head, classifier, and first and later layers of 3 × 3 choices in 2 stages
    assert len(list(every_signature(fewer, (10,)))) == 4 + 2 * 2 * 9
    one = fewer.model_copy(update={"depths": (1,)})
    assert len(list(every_signature(one, (10,)))) == 4 + 2 * 9
    assert list(every_signature(fewer, (10,))) == list(every_signature(fewer, (10,)))
