"""How many candidates a round judges where nobody says: as many as take the work of adapting.

Adapting late wastes a search on bad weights, adapting early takes the time that would have judged more
networks. Which of the two pays better is not known before; whoever spends as much on the one as on the other
gives at least half of the work to it.
"""

from __future__ import annotations

import math

from nat2deploy.data.sets import ImageData
from nat2deploy.search.settings import SearchSettings

FIXED_WEIGHTS = 16
"""Candidates a round where weights stay: rounds are then only when the front is noted."""
_TRAINED = 3.0
"""Work of an image that is trained on, where one that is judged or recalibrated with is 1."""


def candidates_of(settings: SearchSettings, data: ImageData) -> int:
    """Candidates a round: as given, else as many as take the work of an adaptation and what follows it.

    What follows is judging the archive again.

    Work is counted in images that pass a sub-network forwards, so that it is the same on every machine. An
    image trained on passes each of a step's sub-networks, and the teacher once.
    """
    if settings.candidates is not None:
        return settings.candidates
    if settings.adapt_epochs == 0:
        return FIXED_WEIGHTS
    training = settings.adapt_epochs * len(data.train) * (_TRAINED * settings.adapt_subnets + 1.0)
    validation = min(len(data.validation), settings.validation_images or len(data.validation))
    judging = min(len(data.train), settings.recalibration_images) + validation
    again = settings.archive_size if settings.reevaluate else 0
    return max(1, math.ceil(training / judging) + again)
