"""Which network of a front follows one whose bundle took longer than its budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nat2deploy.cost.metric_names import at
from nat2deploy.deploy.manifest import BudgetSpec, Manifest
from nat2deploy.deploy.verify import Verification, latencies
from nat2deploy.run.finetune_report import FinetuneReport
from nat2deploy.run.front import Front, FrontNetwork
from nat2deploy.run.measure_front import measured_values

MOST_EXPORTED = 3
"""Networks that a pipeline exports until one keeps the latency budgets."""


@dataclass(frozen=True)
class TooSlow:
    """A network whose bundle took longer than a latency budget allows, by what its checks said."""

    network: str
    checks: tuple[str, ...]
    slowdown: Mapping[str, float]
    """By budgeted metric: what the bundle took, of what the front says that the network takes."""


def too_slow(
    network: FrontNetwork, manifest: Manifest, verification: Verification, target: str
) -> TooSlow | None:
    """Return by how much a bundle of a front's network misses its latency budgets; None when it keeps them.

    None as well where it was not measured, or on another machine than the bundle's.

    Args:
        network: of the front.
        manifest: of the bundle, with the budgets.
        verification: of the bundle, on this machine.
        target: name of the run's target that the bundle is for; empty without names.
    """
    if verification.latency is None or not verification.same_machine:
        return None
    measured = latencies(verification.latency)
    budgets = _latency_budgets(manifest)
    missed = {budget.text for budget in budgets if measured[budget.metric] > budget.limit}
    if not missed:
        return None
    expected = _expected(network, target)
    return TooSlow(
        network=network.id,
        checks=tuple(f"{one.name}: {one.text}" for one in verification.checks if one.name in missed),
        slowdown={b.metric: measured[b.metric] / expected[b.metric] for b in budgets if b.metric in expected},
    )


def next_within(
    front: Front,
    manifest: Manifest | None,
    missed: Sequence[TooSlow],
    target: str,
    tuned: Mapping[str, FinetuneReport] = MappingProxyType({}),
    unusable: Collection[str] = (),
) -> FrontNetwork | None:
    """Return the most accurate network that keeps the budgets if all are as much slower as those before.

    Args:
        front: to choose from.
        manifest: of a bundle of it, with the budgets; None while none could be exported.
        missed: networks whose bundles took too long.
        target: as of ``too_slow``.
        tuned: networks that are fine-tuned: their accuracy is known, and whether they keep the budgets.
        unusable: networks that cannot be exported.

    None where no other one does, or ``MOST_EXPORTED`` were tried.
    """
    tried = {one.network for one in missed} | set(unusable)
    if len(tried) >= MOST_EXPORTED:
        return None
    budgets = [] if manifest is None else _latency_budgets(manifest)

    def slowdown(metric: str) -> float:
        return max((one.slowdown.get(metric, 1.0) for one in missed), default=1.0)

    def keeps(network: FrontNetwork) -> bool:
        expected = _expected(network, target)
        return all(
            expected[budget.metric] * slowdown(budget.metric) <= budget.limit
            for budget in budgets
            if budget.metric in expected
        )

    def top1(network: FrontNetwork) -> float:
        return tuned[network.id].validation_after.top1 if network.id in tuned else network.top1

    left = [one for one in front.networks if one.feasible and one.id not in tried and keeps(one)]
    left = [one for one in left if one.id not in tuned or tuned[one.id].feasible]
    return max(left, key=top1, default=None)


def _latency_budgets(manifest: Manifest) -> list[BudgetSpec]:
    return [budget for budget in manifest.budgets if budget.metric.startswith("latency")]


def _expected(network: FrontNetwork, target: str) -> dict[str, float]:
    """A network's latencies by metric without its target: measured in the search, else predicted."""
    values = dict(network.costs)
    seen = network.measured_on.get(target) if target else network.measured
    if seen is not None:
        values |= measured_values(target, seen)
    suffix = at("", target) if target else ""
    return {
        metric.removesuffix(suffix): value
        for metric, value in values.items()
        if metric.startswith("latency") and metric.endswith(suffix)
    }
