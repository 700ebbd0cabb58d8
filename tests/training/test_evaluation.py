"""Accuracy, its interval, and the judge of sub-networks."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nat2deploy.data.sets import Split
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.evaluation import Accuracy, SubNetworkEvaluator, accuracy, judge


class Reader(nn.Module):
    """Guesses the class that is written in an image's first pixel, with the same confidence each time."""

    def forward(self, images):
        """[B, 3, r, r] to logits [B, 4]: 2 for the guess, 0 for the rest."""
        return 2.0 * nn.functional.one_hot(images[:, 0, 0, 0].long(), 4).float()


def written(guesses, size=5):
    images = torch.zeros(len(guesses), 3, size, size)
    images[:, 0, 0, 0] = torch.tensor(guesses, dtype=torch.float32)
    return images


def test_accuracy_of_a_network_known_beforehand():
    batches = [
        (written([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0])),
        (written([3, 3]), torch.tensor([3, 1])),
    ]
    network = Reader().train()
    judged = accuracy(network, batches)
    right, wrong = (-math.log(math.exp(x) / (math.exp(2) + 3)) for x in (2, 0))
    assert judged.top1 == 4 / 6
    assert judged.loss == pytest.approx((4 * right + 2 * wrong) / 6)
    assert judged.images == 6
    assert not network.training


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (90, 100, 0.8256, 0.9448),
        (1, 1, 0.2065, 1.0),
        (9000, 10_000, 0.8940, 0.9057),
    ],
)
def test_wilson_interval_against_published_values(right, images, low, high):
    assert Accuracy(right / images, 0.0, images).interval == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize("images", [1, 7, 10, 500, 1797, 10_000])
def test_the_interval_stays_between_none_and_all(images):
    for right in (0, images // 3, images):
        low, high = Accuracy(right / images, 0.0, images).interval
        assert 0.0 <= low <= right / images <= high <= 1.0


@pytest.fixture(scope="module")
def supernet(space, digits) -> SuperNetwork:
    torch.manual_seed(3)
    return SuperNetwork(space, 1.0, digits.classes).eval()


def test_the_evaluator_repeats_itself_and_leaves_the_super_network_alone(supernet, digits, space):
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60)
    first = [evaluator(supernet, a) for a in (space.largest(), space.smallest())]
    torch.manual_seed(99)
    other = SubNetworkEvaluator(digits, seed=0, recalibration_images=60)
    assert [other(supernet, a) for a in (space.largest(), space.smallest())] == first
    assert first[0] != first[1]
    assert all(torch.equal(before[key], value) for key, value in supernet.state_dict().items())
    assert not supernet.training


def test_it_judges_all_validation_images_or_as_many_as_told(supernet, digits, space):
    whole = SubNetworkEvaluator(digits, seed=0, recalibration_images=60)
    assert whole(supernet, space.smallest()).images == len(digits.validation)
    some = SubNetworkEvaluator(digits, seed=0, recalibration_images=60, validation_images=40)
    assert some(supernet, space.smallest()).images == 40
    more = SubNetworkEvaluator(digits, seed=0, validation_images=10**6, recalibration_images=10**6)
    assert more.validation is digits.validation and more.recalibration is digits.train


def test_a_judged_network_has_the_super_networks_weights_and_statistics_of_the_training_images(
    supernet, digits, space
):
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60)
    network = evaluator.network(supernet, space.largest())
    plain = supernet.extract(space.largest())
    for one, two in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two)
    changed = [not torch.equal(a, b) for a, b in zip(network.buffers(), plain.buffers(), strict=True)]
    assert all(changed)
    resolution = space.largest().resolution
    assert judge(network, digits, digits.validation, resolution) == evaluator(supernet, space.largest())


def test_recalibration_lifts_a_network_whose_statistics_are_wrong(digits, space):
    torch.manual_seed(4)
    wrong = SuperNetwork(space, 1.0, digits.classes).eval()
    for module in wrong.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1e6)
            module.running_mean.fill_(50.0)
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60)
    torch.manual_seed(4)
    fresh = SuperNetwork(space, 1.0, digits.classes).eval()
    assert evaluator(wrong, space.largest()) == evaluator(fresh, space.largest())


def test_an_architecture_is_judged_in_its_precision(supernet, digits, space):
    def judged(precision, *symmetric):
        evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60, symmetric_int8=symmetric)
        return evaluator(supernet, replace(space.largest(), precision=precision))

    assert judged("fp32", False) == judged(None, False)
    assert len({judged(precision, False).loss for precision in ("fp32", "fp16", "bf16", "int8")}) == 4
    assert judged("int8", False) == judged("int8", False)
    forms = [judged("int8", symmetric) for symmetric in (False, True)]
    assert forms[0] != forms[1]
    assert judged("int8", False, True).top1 == min(form.top1 for form in forms)


def test_of_several_forms_the_least_accurate_on_all_images_so_far_counts(digits, space, monkeypatch):
    """Forms that err on different images: one is worse on the first half, the other on both together."""
    evaluator = SubNetworkEvaluator(digits, seed=0)
    images = written([0] * 10, size=16)
    split = Split((images * 255).to(torch.uint8), torch.zeros(10, dtype=torch.long))
    built = []

    class Form(nn.Module):
        def __init__(self, right):
            super().__init__()
            self.right, self.seen = right, 0

        def forward(self, x):
            answers = self.right[self.seen : self.seen + len(x)]
            self.seen += len(x)
            return nn.functional.one_hot(torch.tensor([0 if right else 1 for right in answers]), 4).float()

    def forms(network, architecture):
        built.append(network)
        return [
            Form([1, 1, 0, 0, 0, 1, 1, 1, 1, 1]),
            Form([1, 1, 1, 1, 1, 1, 0, 0, 0, 0]),
        ]

    monkeypatch.setattr(evaluator, "in_precision", forms)
    halves = [split.take(torch.arange(5)), split.take(torch.arange(5, 10))]
    found = list(evaluator.looks(nn.Identity(), space.largest(), halves))
    assert [(one.top1, one.images) for one in found] == [(0.4, 5), (0.6, 10)]
    assert len(built) == 1  # forms are simulated once, however many looks there are
    assert evaluator.judge(nn.Identity(), space.largest(), split).top1 == 0.6
    classes = evaluator.first_classes(nn.Identity(), space.largest(), split)
    assert classes.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def with_last_weights(supernet, change):
    """A super-network whose last layers' weights and biases are changed in place."""
    changed = copy.deepcopy(supernet)
    with torch.no_grad():
        for module in changed.modules():
            if isinstance(module, nn.Linear):
                change(module.weight)
                change(module.bias)
    return changed


def test_a_network_too_large_for_a_precision_is_wrong_where_it_gives_no_answer(supernet, digits, space):
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60)
    huge = with_last_weights(supernet, lambda weights: weights.mul_(1e7))
    architecture = replace(space.largest(), precision="fp16")
    network = evaluator.network(huge, architecture)
    (form,) = evaluator.in_precision(network, architecture)
    assert not math.isfinite(judge(form, digits, digits.validation, architecture.resolution).loss)
    whole, half = evaluator(huge, space.largest()), evaluator(huge, architecture)
    assert math.isfinite(whole.loss) and math.isfinite(half.loss) and half.top1 <= whole.top1
    parts = [digits.validation.take(torch.arange(i, i + 40)) for i in (0, 40)]
    assert all(math.isfinite(found.loss) for found in evaluator.looks(network, architecture, parts))
    classes = evaluator.first_classes(network, architecture, digits.validation)
    assert (classes == -1).any()
    assert float((classes == digits.validation.targets).double().mean()) == half.top1


def test_a_network_that_is_broken_itself_has_no_finite_loss_in_any_precision(supernet, digits, space):
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60)
    broken = with_last_weights(supernet, lambda weights: weights.fill_(math.nan))
    for precision in (None, "fp16", "bf16", "int8"):
        assert not math.isfinite(evaluator(broken, replace(space.largest(), precision=precision)).loss)


def test_an_answer_that_is_no_number_is_wrong():
    class Broken(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 4), math.nan)

    found = accuracy(Broken(), [(written([0, 0, 1]), torch.tensor([0, 0, 1]))])
    assert found.top1 == 0.0 and math.isnan(found.loss)
