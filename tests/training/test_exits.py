"""Exits added, judged in every state, and cut away."""

from __future__ import annotations

import json

import pytest
import torch

from nat2deploy.errors import UserError
from nat2deploy.space.lowering import lower, total_macs
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.evaluation import judge
from nat2deploy.training.exits import (
    JudgedExits,
    exit_logits,
    judge_exits,
    keep_exits,
    network_with_exits,
    space_with_exits,
    with_earlier_exits,
    with_exits,
)


@pytest.fixture(scope="module")
def early(space):
    """The small space with early exits, one an architecture."""
    return space.model_copy(update={"exits": "one", "dense_skips": True})


def same(module, other):
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key])


def test_earlier_exits_are_taken_back_from_the_supernet(early):
    supernet = SuperNetwork(early, 1.0, 10).eval()
    network = network_with_exits(supernet, early.largest(8), seed=0)
    assert list(network.exits) == ["1", "2"]
    same(network.exits["1"], supernet.exits["1"])
    same(network.exits["2"], supernet.exits["2"])
    images = torch.randn(2, 3, 8, 8)
    last = supernet(images, early.largest(8))
    torch.testing.assert_close(network.exit_logits(images)[1], last)


def test_exits_that_the_supernet_has_not_are_added_afresh(space):
    supernet = SuperNetwork(space, 1.0, 10).eval()
    one, again, other = (network_with_exits(supernet, space.largest(8), seed=s) for s in (0, 0, 1))
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(one.exit_logits(images)[1], supernet(images, space.largest(8)))
    same(one.exits["1"], again.exits["1"])
    assert not torch.equal(one.exits["1"][1].linear.weight, other.exits["1"][1].linear.weight)
    same(one.exits["2"], supernet.exits["2"])


def test_a_space_with_added_exits_reads_its_architectures(space):
    several = space_with_exits(space)
    architecture = with_earlier_exits(space.largest(8))
    assert several.contains(architecture)
    assert parse_architecture(several, architecture.to_json()) == architecture
    with pytest.raises(UserError):
        parse_architecture(space, architecture.to_json())
    assert space_with_exits(load_space("nano")).name == "nano-me-b"
    assert space_with_exits(load_space("nano-se-d")) == load_space("nano-me-d")
    assert space_with_exits(load_space("nano-ee-d")) == load_space("nano-ee-d")


def test_what_lies_behind_the_last_kept_exit_is_cut(early):
    supernet = SuperNetwork(early, 1.0, 10).eval()
    whole = with_earlier_exits(early.largest(8))
    network = network_with_exits(supernet, early.largest(8), seed=0)
    first = keep_exits(network, early, whole, (1,), [0.25, 0.75])
    assert len(first.layers()) == 1 and list(first.exits) == ["1"]
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(first(images), network.exit_logits(images)[0])
    params = sum(p.numel() for p in first.parameters())
    signatures = lower(early, with_exits(whole, (1,)), 10)
    assert params == sum(signature.params for signature in signatures)
    assert total_macs(signatures) < total_macs(lower(early, whole, 10))
    both = keep_exits(network, early, whole, (1, 2), [0.25, 0.75])
    expected = 0.25 * network.exit_logits(images)[0] + 0.75 * network.exit_logits(images)[1]
    torch.testing.assert_close(both(images), expected)


def test_kept_weights_add_up_to_one(early):
    space = early.model_copy(update={"stages": (*early.stages, early.stages[0])})
    supernet = SuperNetwork(space, 1.0, 10).eval()
    whole = with_earlier_exits(space.largest(8))
    network = network_with_exits(supernet, space.largest(8), seed=0)
    kept = keep_exits(network, space, whole, (1, 3), [1 / 6, 2 / 6, 3 / 6])
    torch.testing.assert_close(kept.exit_weights, torch.tensor([0.25, 0.75]))


def test_every_state_is_judged_as_the_cut_network_would_be(early, digits):
    supernet = SuperNetwork(early, 1.0, 10).eval()
    whole = with_earlier_exits(early.largest(8))
    network = network_with_exits(supernet, early.largest(8), seed=0)
    weights = [1 / 3, 2 / 3]
    logits = exit_logits(network, digits, digits.validation, 8)
    assert logits.shape == (2, len(digits.validation), 10)
    judged = judge_exits(logits, (1, 2), weights, digits.validation.targets)
    assert set(judged.states) == {(1,), (2,), (1, 2)}
    assert judged.exits == (1, 2) and judged.whole == judged.states[1, 2]
    for exits, accuracy in judged.states.items():
        cut = keep_exits(network, early, whole, exits, weights)
        expected = judge(cut, digits, digits.validation, 8)
        assert accuracy.top1 == expected.top1 and accuracy.images == expected.images
        assert accuracy.loss == pytest.approx(expected.loss, rel=1e-5)


def test_judged_exits_come_back_from_json(early):
    judged = judge_exits(torch.randn(2, 7, 10), (1, 2), [0.5, 0.5], torch.arange(7))
    assert JudgedExits.from_json(json.loads(json.dumps(judged.to_json()))) == judged
