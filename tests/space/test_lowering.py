import warnings

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from space_strategies import architectures

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import (
    added,
    every_signature,
    lower,
    plan_network,
    scaled,
    stage_sizes,
    total_macs,
    total_params,
)
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
    plan = plan_network(space, architecture, classes)
    network = SubNetwork(plan)
    assert total_macs(plan.signatures) == counted(network, architecture.resolution)
    assert total_params(plan.signatures) == sum(p.numel() for p in network.parameters())
    for signature, block in zip(plan.blocks, network.blocks(), strict=True):
        assert signature.params == sum(p.numel() for p in block.parameters())


@settings(max_examples=12)
@given(architectures(NANO), st.sampled_from([2, 10]))
def test_counts_of_nano_are_fvcores(architecture, classes):
    check_counts(NANO, architecture, classes)


VARIANTS = [
    load_space(f"nano-{exits}-{body}") for exits in ("se", "ee", "me") for body in ("b", "d", "p", "dp")
]
any_variant = st.sampled_from([*VARIANTS, load_space("ofav2-mbv3"), load_space("ofav2-mbv3-me-dp")])
with_architecture = any_variant.flatmap(lambda s: st.tuples(st.just(s), architectures(s)))


@settings(max_examples=25)
@given(with_architecture)
def test_counts_of_every_variant_are_fvcores(pair):
    check_counts(*pair, 10)


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


@given(st.sampled_from([NANO, OFA, *VARIANTS]).flatmap(lambda s: st.tuples(st.just(s), architectures(s))))
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


def test_the_final_exit_of_a_variant_is_the_base_networks_own():
    base = lower(OFA, OFA.largest(224, 1.0), 1000)
    early = load_space("ofav2-mbv3-ee-b")
    assert lower(early, early.largest(224, 1.0), 1000) == base


def test_exits_are_like_the_final_one_in_proportion_to_their_stage():
    space = load_space("ofav2-mbv3-ee-b")
    exits = plan_network(space, space.full(224, 1.0), 10).exits
    assert [(head.in_channels, head.mid_channels, head.out_channels) for head, _ in exits.values()] == [
        (24, 144, 192), (40, 240, 320), (80, 480, 640), (112, 672, 896), (160, 960, 1280),
    ]  # fmt: skip
    assert [head.height for head, _ in exits.values()] == [56, 28, 14, 14, 7]


def test_dense_skips_add_what_lies_two_or_more_layers_back():
    assert [list(added(position)) for position in range(4)] == [[], [], [0], [0, 1]]
    space = load_space("ofav2-mbv3-se-d")
    sums = plan_network(space, space.largest(224, 1.0), 10).sums
    assert [s.in_channels for s in sums] == [c for c in (24, 40, 80, 112, 160) for _ in range(3)]


def test_a_layer_with_three_branches_has_two_sums():
    space = load_space("nano-se-p")
    plan = plan_network(space, space.largest(28), 10)
    assert len(plan.sums) == 2 * sum(space.largest().depths)
    kinds = [[block.kind for block in layer.values()] for stage in plan.stages for layer in stage]
    assert kinds == [["mbconv", "pointwise", "transform"]] * 12
    smallest = plan_network(space, space.smallest(28), 10)
    assert [block.kind for stage in smallest.stages for layer in stage for block in layer.values()] == [
        "transform"
    ] * 4
