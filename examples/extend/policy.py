"""A policy: a first archive of architectures that differ from each other in as many genes as can be.

    NAT2DEPLOY_PLUGINS=examples/extend/policy.py nat2deploy search --settings settings.toml ...

where settings.toml says `initialisation = "far-apart"`. A package names the class instead, in its
pyproject.toml:

    [project.entry-points."nat2deploy.initialisations"]
    far-apart = "my_package.policy:FarApart"

Updates of the archive, choices of candidates, distributions and searchers are added in the same way.
"""

from __future__ import annotations

import numpy as np

from nat2deploy.plugins import register
from nat2deploy.search.costs import Objectives
from nat2deploy.search.initialisation import Initialisation
from nat2deploy.space.encoding import Genes
from nat2deploy.space.sampling import uniform_depth_genes


class FarApart(Initialisation):
    """Of many draws, one by one the one that differs most from all that were taken before."""

    oversampling = 8

    def _draw(self, objectives: Objectives, rng: np.random.Generator, count: int) -> Genes:
        """Return canonical genes [count, G]; the base class makes them distinct and adds the ends."""
        pool = uniform_depth_genes(objectives.encoding, rng, count * self.oversampling, self.repair)
        taken = [0]
        nearest = (pool != pool[0]).sum(axis=1)
        while len(taken) < count:
            farthest = int(nearest.argmax())
            taken.append(farthest)
            nearest = np.minimum(nearest, (pool != pool[farthest]).sum(axis=1))
        chosen: Genes = pool[taken]
        return chosen


register("initialisation", "far-apart", FarApart)
