"""The loss by hand."""

from __future__ import annotations

import math

import pytest
import torch

from nat2deploy.training.losses import distillation_loss, exit_weights, exits_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
TARGETS = torch.tensor([0, 2])


def log_softmax(row):
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def by_hand(soft_targets) -> float:
    """Mean cross-entropy of the logits with rows of probabilities."""
    rows = [log_softmax(row) for row in LOGITS.tolist()]
    return -sum(
        sum(q * p for q, p in zip(soft, row, strict=True))
        for soft, row in zip(soft_targets, rows, strict=True)
    ) / len(rows)


SMOOTH = [[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3], [0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3]]


def test_without_a_teacher_it_is_smoothed_cross_entropy():
    assert distillation_loss(LOGITS, TARGETS, None, 1.0).item() == pytest.approx(by_hand(SMOOTH), rel=1e-5)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.5])
def test_the_teachers_softmax_counts_by_the_ratio(ratio):
    teacher = torch.tensor([[1.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    soft = [[math.exp(value) for value in log_softmax(row)] for row in teacher.tolist()]
    expected = ratio * by_hand(soft) + by_hand(SMOOTH)
    assert distillation_loss(LOGITS, TARGETS, teacher, ratio).item() == pytest.approx(expected, rel=1e-5)


def test_exit_weights_are_ofav2s_and_ascend():
    assert exit_weights((1, 2, 3, 4, 5), 5) == pytest.approx((0.06, 0.13, 0.20, 0.27, 0.34))
    assert exit_weights((1, 2, 3, 4), 4) == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert exit_weights((3,), 5) == (1.0,)
    assert exit_weights((1, 5), 5) == pytest.approx((0.06 / 0.40, 0.34 / 0.40))


def test_exit_weights_descend_in_nat2s_search():
    assert exit_weights((1, 2, 3, 4, 5), 5, "descending") == pytest.approx((0.34, 0.27, 0.20, 0.13, 0.06))
    assert exit_weights((1, 2, 3, 4), 4, "descending") == pytest.approx((0.4, 0.3, 0.2, 0.1))
    assert exit_weights((3,), 5, "descending") == (1.0,)
    assert exit_weights((1, 5), 5, "descending") == pytest.approx((0.34 / 0.40, 0.06 / 0.40))


def test_the_loss_of_several_exits_is_the_weighted_sum():
    teacher = torch.tensor([[1.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    parts = [distillation_loss(logits, TARGETS, teacher, 0.5) for logits in (LOGITS, -LOGITS)]
    found = exits_loss([LOGITS, -LOGITS], (0.25, 0.75), TARGETS, teacher, 0.5)
    torch.testing.assert_close(found, 0.25 * parts[0] + 0.75 * parts[1])
    torch.testing.assert_close(exits_loss([LOGITS], (1.0,), TARGETS, teacher, 0.5), parts[0])
