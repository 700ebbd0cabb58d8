"""AEP's weights and joint loss."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from nat2deploy.blocks import SubNetwork
from nat2deploy.space.lowering import plan_network
from nat2deploy.training.aep import JointTraining, exit_weights_by, train_jointly
from nat2deploy.training.exits import space_with_exits
from nat2deploy.training.loop import LoopSettings


@pytest.fixture
def network(space) -> SubNetwork:
    """Untrained, with an exit behind each of its two stages."""
    space = space_with_exits(space)
    return SubNetwork(plan_network(space, space.full(8), 10)).eval()


@pytest.mark.parametrize(
    ("weighting", "losses", "outputs"),
    [
        ("unif", [1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]),
        ("asc", [1 / 6, 2 / 6, 3 / 6], [1 / 6, 2 / 6, 3 / 6]),
        ("desc", [3 / 6, 2 / 6, 1 / 6], [3 / 6, 2 / 6, 1 / 6]),
        ("mix", [3 / 6, 2 / 6, 1 / 6], [1 / 6, 2 / 6, 3 / 6]),
        ("learned", [1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_weights_are_the_papers(weighting, losses, outputs):
    weights = exit_weights_by(weighting, 3)
    assert weights.losses == pytest.approx(losses)
    assert weights.outputs == pytest.approx(outputs)
    assert weights.learned == (weighting == "learned")


@pytest.mark.parametrize("weighting", ["unif", "asc", "desc", "mix", "learned"])
def test_a_single_exit_has_all_of_the_weight(weighting):
    weights = exit_weights_by(weighting, 1)
    assert (weights.losses, weights.outputs, weights.learned) == ((1.0,), (1.0,), False)


def test_the_loss_is_the_weighted_sum_of_the_exits_cross_entropies(network):
    images, targets = torch.randn(6, 3, 8, 8), torch.arange(6)
    one, two = (float(F.cross_entropy(logits, targets).detach()) for logits in network.exit_logits(images))
    for weighting, share in (("unif", 1 / 2), ("asc", 1 / 3), ("desc", 2 / 3), ("mix", 2 / 3)):
        joint = JointTraining(network, exit_weights_by(weighting, 2))
        expected = share * one + (1 - share) * two
        assert float(joint.loss(images, targets, None, 0.0).detach()) == pytest.approx(expected, rel=1e-5)


def test_learned_weights_begin_uniform_and_must_lower_the_ensembles_loss(network):
    images, targets = torch.randn(6, 3, 8, 8), torch.arange(6)
    joint = JointTraining(network, exit_weights_by("learned", 2))
    torch.testing.assert_close(joint.output_weights(), torch.tensor([0.5, 0.5]))
    logits = network.exit_logits(images)
    ensemble = F.cross_entropy((logits[0] + logits[1]) / 2, targets)
    exits = (F.cross_entropy(logits[0], targets) + F.cross_entropy(logits[1], targets)) / 2
    torch.testing.assert_close(joint.loss(images, targets, None, 0.0), ensemble + exits)


def test_training_learns_to_trust_the_exit_that_is_right(network, digits):
    with torch.no_grad():  # the first exit is blind, and stays so
        network.exits["1"][1].linear.weight.zero_()
    network.exits["1"].requires_grad_(False)
    joint = JointTraining(network, exit_weights_by("learned", 2))
    settings = LoopSettings(epochs=8.0, learning_rate=0.05, batch_size=25)
    train_jointly(joint, digits, settings, 8)
    assert float(network.exit_weights[1]) > 0.6
    assert float(network.exit_weights.sum()) == pytest.approx(1.0)


def test_the_prediction_is_the_argmax_of_the_weighted_logits(network, digits):
    settings = LoopSettings(epochs=1.0, learning_rate=0.05, batch_size=25)
    joint = JointTraining(copy.deepcopy(network), exit_weights_by("mix", 2))
    assert train_jointly(joint, digits, settings, 8) == 4
    trained = joint.network.eval()
    images = torch.randn(5, 3, 8, 8)
    first, second = trained.exit_logits(images)
    torch.testing.assert_close(trained(images), first / 3 + second * 2 / 3)


def test_a_teacher_is_followed_by_every_exit(network):
    images, targets = torch.randn(6, 3, 8, 8), torch.arange(6)
    guide = torch.randn(6, 10)
    joint = JointTraining(network, exit_weights_by("unif", 2))
    logits = network.exit_logits(images)
    extra = sum(F.cross_entropy(one, F.softmax(guide, dim=1)) for one in logits) / 2
    alone = joint.loss(images, targets, None, 0.0)
    torch.testing.assert_close(joint.loss(images, targets, guide, 0.0), alone + extra)
