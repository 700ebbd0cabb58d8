"""A whole network that was measured: for a table's calibration, or for its certificate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nat2deploy.cost.measured import MeasuredLatency
from nat2deploy.space.lowering import lower
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature


class NetworkEntry(MeasuredLatency):
    """One network's measurement. ``held-out`` ones the calibration never saw.

    ``converged`` as of a block's entry; None in tables of old versions.
    """

    architecture: dict[str, Any]
    classes: Annotated[int, Field(ge=1, le=100_000)]
    role: Literal["calibration", "held-out"]
    converged: bool | None = None

    def signatures(self, space: SearchSpace) -> list[BlockSignature]:
        """Return everything of the network that costs something.

        Raises:
            UserError: the architecture is not of ``space``.
        """
        return lower(space, parse_architecture(space, self.architecture), self.classes)
