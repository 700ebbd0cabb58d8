from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from deploy_helpers import LABELS, PREPROCESSING, RESOLUTION

from nat2deploy.deploy.judging import Labelled, Promise, check_promise, first_classes, inputs_of, judge_engine
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError
from nat2deploy.target import Precision, Target

COUNT = 2000


class Says(Engine):
    """Gives each image a class by its first pixel's red, which ``images`` counts up; some of them another."""

    def __init__(self, wrong: int = 0) -> None:
        super().__init__(Target(), (1, 3, RESOLUTION, RESOLUTION))
        self._wrong, self._asked = wrong, 0

    def _run(self, images: Any) -> Any:
        self._asked += 1
        said = (self._asked - 1) % len(LABELS)
        if self._asked <= self._wrong:
            said = (said + 1) % len(LABELS)
        return np.eye(len(LABELS), dtype=np.float32)[[said]]

    def _prepare(self, images: Any) -> Callable[[], None]:
        raise NotImplementedError

    def _save(self, path: Any) -> None:
        raise NotImplementedError


SPLIT = Labelled(
    "counted",
    torch.zeros(COUNT, 1, RESOLUTION, RESOLUTION, dtype=torch.uint8),
    torch.arange(COUNT) % len(LABELS),
)


def judged(wrong: int, precision: Precision, max_drop: float = 0.005) -> Any:
    return judge_engine(Says(wrong), Says(), PREPROCESSING, SPLIT, precision, max_drop)


def test_every_image_is_counted() -> None:
    accuracy = judged(2, "fp32")
    assert (accuracy.images, accuracy.float_top1) == (COUNT, 1.0)
    assert accuracy.top1 == accuracy.agreement == pytest.approx(1 - 2 / COUNT)


def test_fp32_may_differ_from_pytorch_on_one_image_in_a_thousand() -> None:
    with pytest.raises(UserError, match=r"another first class than PyTorch in 0.15% of the test images"):
        judged(3, "fp32")


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_other_precisions_may_lose_half_a_point(precision: Precision) -> None:
    assert judged(10, precision).top1 == pytest.approx(0.995)
    with pytest.raises(UserError, match=r"loses 0\.55 points of accuracy \(99\.45%"):
        judged(11, precision)


def test_more_may_be_lost_where_the_user_says_so_but_no_less_is_asked() -> None:
    assert judged(30, "int8", 0.02).top1 == pytest.approx(0.985)
    assert judged(10, "int8", 0.001).top1 == pytest.approx(0.995)
    with pytest.raises(UserError, match="--calibration-method"):
        judged(50, "int8", 0.02)


def test_first_classes_are_those_of_the_inputs_in_order() -> None:
    images = SPLIT.images[:7]
    assert inputs_of(PREPROCESSING, images).shape == (7, 3, RESOLUTION, RESOLUTION)
    assert first_classes(Says(), PREPROCESSING, images).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("lost", "gained", "kept"),
    [
        (0, 0, True),
        (18, 0, True),  # of 2,000 images: 10, and twice the root of those that one of the two gets right
        (19, 0, False),
        (200, 200, True),
        (141, 100, True),
        (142, 100, False),
        (0, 500, True),
    ],
)
def test_a_promise_of_8_bits_may_be_missed_by_half_a_point_and_chance(
    lost: int, gained: int, kept: bool
) -> None:
    classes = SPLIT.targets.numpy().copy()
    classes[COUNT - gained :] += 1
    promise = Promise(classes, SPLIT)
    if kept:
        return check_promise(Says(lost), PREPROCESSING, promise)
    told = f"top-1 of {1 - lost / COUNT:.2%} on 2000 validation images, where 8 bits as the search simulates "
    with pytest.raises(UserError, match=f"{told}them have {1 - gained / COUNT:.2%}"):
        check_promise(Says(lost), PREPROCESSING, promise)
    return None
