"""A network's stages, and the same network with some of them merged."""

from __future__ import annotations

import pytest
import torch
from staged_helpers import RESOLUTION, WEIGHTS, plan_of, trained


def answers(plan, images):
    """The sum of the logits up to each of the plan's exits."""
    total, found, x = 0, [], images
    with torch.no_grad():
        for module in plan.modules:
            given = module(x)
            logits, x = given if isinstance(given, tuple) else (given, None)
            total = total + logits
            found.append(total)
    assert x is None  # the last stage gives logits alone
    return found


@pytest.mark.parametrize(
    ("places", "left"), [((), (1, 2, 3)), ((0,), (2, 3)), ((1,), (1, 3)), ((0, 1), (3,))]
)
def test_merged_stages_answer_as_before_where_an_exit_is_left(places, left):
    plan = plan_of(trained())
    fewer = plan.without(places)
    assert fewer.numbers == left
    assert fewer.merged == tuple(place + 1 for place in places)
    assert [one.macs for one in fewer.costs] == [plan.costs[number - 1].macs for number in left]
    assert sum(fewer.weights) == pytest.approx(1) and fewer.weights[0] == pytest.approx(
        sum(WEIGHTS[: left[0]])
    )
    images = torch.randn(4, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(0))
    whole = answers(plan, images)
    for number, found in zip(left, answers(fewer, images), strict=True):
        torch.testing.assert_close(found, whole[number - 1])


def test_merging_twice_counts_the_networks_own_exits():
    plan = plan_of(trained()).without((0,)).without((0,))
    assert (plan.numbers, plan.merged, len(plan.modules)) == ((3,), (1, 2), 1)
    assert plan.weights == pytest.approx((1.0,))


def test_the_target_is_said_in_words():
    network = trained()
    assert plan_of(network).target == "top-1 >= the ensemble's - 0.5 points"
    assert plan_of(network, top1=0.9).target == "top-1 >= 90 %"
    assert plan_of(network, expected_latency_ms=0.2).target == "expected latency <= 0.2 ms"
