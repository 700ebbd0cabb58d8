"""Successive halving on validation images: networks that are clearly dominated are not judged to the end.

As in successive halving (Jamieson and Talwalkar, 2016) each look has twice the images of the one before. A
network is not dropped by rank but by a test, so that each one's fate follows from what was judged before its
batch, and the order in which a batch is judged makes no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import hypergeom

from nat2deploy.search.archive import Evaluation
from nat2deploy.search.costs import Objectives
from nat2deploy.search.judges.base import Job
from nat2deploy.space.architecture import Architecture


def gates(images: int, least: int, first: int, risk: float) -> tuple[tuple[int, int], ...]:
    """Return (images, right) of each look before all ``images``, the first at ``first`` of them.

    A network that gets ``least`` or more of all images right fails any look with probability at most
    ``risk``. The images of a look are drawn without replacement, so those right among them are
    hypergeometric: exact for any numbers. The looks share the risk evenly.
    """
    looks = []
    count = first
    while count < images:
        looks.append(count)
        count *= 2
    share = risk / max(1, len(looks))
    # The smallest number that has a probability of at least its share up to it: fewer are rarer than that.
    wanted = ((look, int(hypergeom.ppf(share, images, least, look))) for look in looks)
    return tuple((look, right) for look, right in wanted if right > 0)


class Halving:
    """Says when to stop judging a network that others would dominate.

    ``images`` is the number of validation images, ``first`` how many the first look has.
    """

    def __init__(self, objectives: Objectives, images: int, first: int, risk: float) -> None:
        self.objectives = objectives
        self.images = images
        self.first = first
        self.risk = risk

    def jobs(self, architectures: Sequence[Architecture], judged: Sequence[Evaluation]) -> list[Job]:
        """Return the jobs of architectures, with gates where others that were ``judged`` cost no more.

        Only evaluations on all images count, of networks that keep every budget.
        """
        budgets = self.objectives.budgets
        rivals = [
            e
            for e in judged
            if e.images is None and all(budget.kept_by(e.values[budget.metric]) for budget in budgets)
        ]
        costs = self.objectives.costs_of(list(architectures))
        return [Job(a, self._gates(values, rivals)) for a, values in zip(architectures, costs, strict=True)]

    def _gates(self, costs: dict[str, float], rivals: list[Evaluation]) -> tuple[tuple[int, int], ...]:
        metrics = self.objectives.metrics
        cheaper = [e for e in rivals if all(e.values[m] <= costs[m] for m in metrics)]
        best = max((e.values["top1"] for e in cheaper), default=0.0)
        return gates(self.images, round(best * self.images), self.first, self.risk)
