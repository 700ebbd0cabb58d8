"""Super-networks of several widths side by side: each keeps its own weights, and one file holds all."""

from __future__ import annotations

import json

import pytest
import torch

from nat2deploy.errors import UserError
from nat2deploy.supernet.checkpoint import (
    SuperNetworkInfo,
    load_supernet,
    read_metadata,
    save_supernet,
    supernet_info,
)
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.supernet.several_widths import SuperNetworks, networks_of, side_by_side

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pair(tiny_space) -> list[SuperNetwork]:
    torch.manual_seed(0)
    return [SuperNetwork(tiny_space, width, 10).eval() for width in (0.5, 1.0)]


@pytest.fixture
def both(pair) -> SuperNetworks:
    return SuperNetworks(list(reversed(pair)))


def info_of(both) -> SuperNetworkInfo:
    return SuperNetworkInfo(space=both.space, width=0.5, more_widths=(1.0,), classes=10)


@pytest.mark.parametrize("end", ["smallest", "largest", "full"])
def test_an_architectures_width_says_whose_weights_it_has(both, pair, tiny_space, end):
    for network, width in zip(pair, (0.5, 1.0), strict=True):
        architecture = getattr(tiny_space, end)(16, width)
        with torch.no_grad():
            assert torch.equal(both(IMAGES, architecture), network(IMAGES, architecture))
            assert torch.equal(both.extract(architecture)(IMAGES), network.extract(architecture)(IMAGES))
            together = zip(
                both.exit_logits(IMAGES, architecture), network.exit_logits(IMAGES, architecture), strict=True
            )
            assert all(torch.equal(one, other) for one, other in together)


def test_a_step_on_one_width_leaves_the_other_alone(both, tiny_space):
    before = {key: value.clone() for key, value in both.state_dict().items()}
    both.train()
    optimiser = torch.optim.SGD(both.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        both(IMAGES, tiny_space.largest(16, 1.0)).sum().backward()
        optimiser.step()
    changed = {
        key.split(".")[1] for key, value in both.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"1"}


def test_sorting_channels_leaves_both_full_networks_functions(both, tiny_space):
    full = [tiny_space.full(16, width) for width in (0.5, 1.0)]
    with torch.no_grad():
        before = [both(IMAGES, architecture) for architecture in full]
        weights = {key: value.clone() for key, value in both.state_dict().items()}
        both.sort_channels()
        for architecture, logits in zip(full, before, strict=True):
            torch.testing.assert_close(both(IMAGES, architecture), logits)
    moved = {
        key.split(".")[1] for key, value in both.state_dict().items() if not torch.equal(value, weights[key])
    }
    assert moved == {"0", "1"}


def test_one_file_holds_both(both, tmp_path):
    path = tmp_path / "both.safetensors"
    save_supernet(path, both, info_of(both))
    loaded, info = load_supernet(path)
    assert isinstance(loaded, SuperNetworks) and not loaded.training
    assert info == supernet_info(path) == info_of(both) and info.widths == (0.5, 1.0)
    assert loaded.space == both.space and loaded.space.widths == (0.5, 1.0)
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in both.state_dict().items())


def test_a_file_of_one_says_what_it_always_said(pair, tmp_path):
    path = tmp_path / "one.safetensors"
    save_supernet(path, pair[0], SuperNetworkInfo(space=pair[0].space, width=0.5, classes=10))
    assert "more_widths" not in json.loads(read_metadata(path, "super-network"))
    assert isinstance(load_supernet(path)[0], SuperNetwork)


def test_one_alone_stays_as_it_is(pair, both):
    assert side_by_side(pair[:1]) is pair[0] and networks_of(pair[0]) == pair[:1]
    assert networks_of(both) == pair and both.at(0.5) is pair[0]


def test_what_does_not_stand_side_by_side_is_refused(pair, tiny_space, both):
    with pytest.raises(UserError, match="of one width"):
        SuperNetworks([pair[0], SuperNetwork(tiny_space, 0.5, 10)])
    for other in (
        SuperNetwork(tiny_space, 1.0, 9),
        SuperNetwork(tiny_space.restrict(resolutions=(24,)), 1.0, 10),
        SuperNetwork(tiny_space.model_copy(update={"kernels": (3, 5)}), 1.0, 10),
    ):
        with pytest.raises(UserError, match=r"widths 0\.5 and 1 differ"):
            SuperNetworks([pair[0], other])
    with pytest.raises(UserError, match=r"no super-network of width 2 here, but of 0\.5 and 1"):
        both.at(2.0)


def test_another_name_of_the_space_makes_no_difference(pair, tiny_space):
    other = SuperNetwork(tiny_space.model_copy(update={"name": "other"}), 1.0, 10)
    assert SuperNetworks([pair[0], other]).space == tiny_space
