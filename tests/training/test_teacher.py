"""A teacher that is to be followed must know its subject."""

from __future__ import annotations

import pytest
import torch

from nat2deploy.data.load import load_data
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.supernet import adapt
from nat2deploy.training.teacher import CalibratedTeacher, full_teacher


@pytest.fixture
def supernet(space, digits) -> SuperNetwork:
    """Trained on its ends in turn, so that its statistics are neither's."""
    torch.manual_seed(0)
    supernet = SuperNetwork(space, 1.0, digits.classes)
    both = [space.smallest(16), space.largest(16)]
    settings = LoopSettings(epochs=20.0, learning_rate=0.05, batch_size=25)
    adapt(supernet, lambda step: both, digits, settings)
    return supernet


@pytest.mark.parametrize("resolution", [8, 16])
def test_a_calibrated_teacher_is_the_judged_full_network_at_each_resolution(
    supernet, digits, space, resolution
):
    teacher = CalibratedTeacher(supernet, digits, seed=0, epochs=1)
    found = judge(teacher, digits, digits.validation, resolution)
    judged = SubNetworkEvaluator(digits, seed=0)(supernet, space.full(resolution))
    assert (found.top1, found.loss) == pytest.approx((judged.top1, judged.loss), rel=1e-5)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    if resolution == 16:  # the one that it was trained at
        assert found.top1 > 0.3  # chance: 0.1


def test_what_training_left_in_the_statistics_makes_no_difference(supernet, digits, space):
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        before, raw = (
            CalibratedTeacher(supernet, digits, seed=0, epochs=1)(images),
            full_teacher(supernet)(images),
        )
        for module in supernet.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.fill_(3.0)
                module.running_var.fill_(9.0)
        torch.testing.assert_close(CalibratedTeacher(supernet, digits, seed=0, epochs=1)(images), before)
        assert not torch.allclose(full_teacher(supernet)(images), raw)


def test_turning_back_to_a_resolution_gives_the_same(supernet, digits):
    teacher = CalibratedTeacher(supernet, digits, seed=0, epochs=1)
    images = {side: torch.randn(4, 3, side, side) for side in (8, 16)}
    with torch.no_grad():
        first = {side: teacher(images[side]) for side in (16, 8)}
        for side in (16, 8, 16):
            assert torch.equal(teacher(images[side]), first[side])


@pytest.mark.parametrize(("epochs", "images"), [(0.1, 250), (0.3, 500), (1.0, 900), (7.0, 900)])
def test_short_training_is_not_mostly_its_teachers_statistics(space, epochs, images):
    many = load_data("digits", seed=0, base_resolution=16, max_train=900)
    teacher = CalibratedTeacher(SuperNetwork(space, 1.0, many.classes), many, seed=0, epochs=epochs)
    assert len(teacher.images) == images
