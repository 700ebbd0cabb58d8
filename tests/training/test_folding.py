"""BN folded into convolutions: every body of the presets, and what the judge of sub-networks makes of it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training import evaluation
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.training.folding import folded

IMAGES = 40


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def unlike_fresh(network):
    """The network with statistics, scales and shifts as if it had been trained."""
    for norm in norms(network):
        for tensor in (norm.running_var, norm.weight):
            nn.init.uniform_(tensor, 0.5, 1.5)
        for tensor in (norm.running_mean, norm.bias):
            nn.init.normal_(tensor, std=0.3)
    return network.eval()


@pytest.mark.parametrize("variant", ["se-b", "me-d", "ee-p", "me-dp"])
def test_answers_stay_and_bn_goes_where_a_convolution_is_before_it(variant):
    space = load_space(f"nano-{variant}").restrict(resolutions=(28,))
    supernet = unlike_fresh(SuperNetwork(space, 1.0, 10))
    images = torch.randn(8, 3, 28, 28)
    for architecture in random_architectures(IntegerEncoding(space), np.random.default_rng(5), 4):
        network = supernet.extract(architecture)
        before = copy.deepcopy(network.state_dict())
        faster = folded(network)
        with torch.inference_mode():
            for one, two in zip(network.exit_logits(images), faster.exit_logits(images), strict=True):
                torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
        assert all(torch.equal(before[name], held) for name, held in network.state_dict().items())
        # Only a branch without a convolution keeps its own.
        alone = sum(getattr(block, "conv", ...) is None for block in network.modules())
        assert len(norms(faster)) == alone < len(norms(network))


def test_a_network_in_training_mode_is_folded_for_evaluation(space):
    network = unlike_fresh(SuperNetwork(space, 1.0, 4)).extract(space.largest()).train()
    images = torch.randn(4, 3, 16, 16)
    with torch.inference_mode():
        said = folded(network)(images)
        torch.testing.assert_close(said, network.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("images", [IMAGES, IMAGES - 1])
def test_many_images_are_judged_with_a_folded_network(space, digits, monkeypatch, images):
    supernet = unlike_fresh(SuperNetwork(space, 1.0, digits.classes))
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60, validation_images=images)
    plain = evaluator(supernet, space.largest())
    monkeypatch.setattr(evaluation, "_FOLD_FROM", IMAGES)
    calls = []
    monkeypatch.setattr(evaluation, "folded", lambda network: calls.append(network) or folded(network))
    found = evaluator(supernet, space.largest())
    assert len(calls) == (images >= IMAGES)
    assert found.top1 == plain.top1 and found.loss == pytest.approx(plain.loss, rel=1e-4)
