"""Hypervolume of a front, comparable over a whole search."""

from __future__ import annotations

import numpy as np
from pymoo.indicators.hv import HV

from nat2deploy.search.survival import Floats


class HypervolumeMeter:
    """Normalised hypervolume; the reference point is 1.01 × the worst of the first archive (NAT2).

    ``first`` holds the objectives [N, M] of the first archive. 0 is nothing, 1 the whole box down to 0.
    """

    def __init__(self, first: Floats) -> None:
        self.reference = 1.01 * first.max(axis=0)

    def __call__(self, objectives: Floats) -> float:
        """Share of the box between 0 and the reference point that rows of [N, M] dominate."""
        if len(objectives) == 0:
            return 0.0
        scale = np.where(self.reference > 0, self.reference, 1.0)
        return float(HV(ref_point=np.ones(len(scale)))(objectives / scale))
