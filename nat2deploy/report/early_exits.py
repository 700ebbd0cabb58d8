"""What a bundle with stages could have been: accuracy against the expected cost, over thresholds."""

from __future__ import annotations

from typing import Any

from nat2deploy.deploy.runner.expected import expected_cost
from nat2deploy.report.formats import Bundle


def early_exits(bundle: Bundle) -> dict[str, Any] | None:
    """Return points of top-1 (shares) and expected cost; None for a bundle without stages.

    The cost is latency in ms as it was measured last, millions of MACs where it was not. Shares of images
    are those of the split that the accuracy is of.
    """
    stages = bundle.stages
    if stages is None:
        return None
    measured = [one.stages for one in bundle.measured if one.stages is not None]
    timed = bool(measured) and len(measured[-1].exits) == len(stages.exits)
    costs = [one.costs.macs / 1e6 for one in stages.exits]
    if timed:
        costs = [one.median_ms for one in measured[-1].exits]
    batch = bundle.input.shape[0] if bundle.input.shape and timed else 1

    def point(top1: float, shares: tuple[float, ...]) -> dict[str, float] | None:
        if len(shares) != len(costs):
            return None
        return {"top1": top1, "cost": expected_cost(shares, costs, batch)}

    sweep = [point(one.top1, one.shares) for one in stages.sweep]
    return {
        "label": "expected latency (ms)" if timed else "expected MACs (M)",
        "sweep": sorted((one for one in sweep if one is not None), key=lambda one: one["cost"]),
        "chosen": point(stages.validation.top1, stages.validation.shares),
        "test": None if stages.test is None else point(stages.test.top1, stages.test.shares),
        "whole": {"top1": stages.validation.ensemble_top1, "cost": costs[-1]},
    }
