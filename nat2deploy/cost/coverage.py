"""Whether a table can predict a space: its own, or one whose every block it holds."""

from __future__ import annotations

from nat2deploy.cost.latency import BlockMedians
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import SearchSpace

_CLASSES = (10,)  # any number: a classifier's figure is known for all of them, or for none


def check_serves(table: LatencyTable, space: SearchSpace) -> None:
    """Check that a table is of ``space``, or holds its every block at the resolutions and widths of both.

    Blocks know nothing of the space around them, so a table of ``nano-me-dp`` serves all that have fewer
    exits, no dense skips or no parallel branches, down to plain ``nano``.

    Raises:
        UserError: it lacks a block.
    """
    if table.space_fingerprint == space.fingerprint:
        return
    resolutions = tuple(r for r in space.resolutions if r in table.resolutions)
    widths = tuple(w for w in space.widths if w in table.widths)
    if not (resolutions and widths):
        table.check_fingerprint(space)
    medians = BlockMedians(table.entries)
    try:
        for signature in every_signature(space.restrict(resolutions=resolutions, widths=widths), _CLASSES):
            medians.median_ms(signature)
    except UserError:
        table.check_fingerprint(space)


def check_space(table: LatencyTable, space: SearchSpace) -> None:
    """Check that every network of ``space`` can be looked up.

    Raises:
        UserError: another space, or a resolution or width that was not measured.
    """
    check_serves(table, space)
    for resolution in space.resolutions:
        for width in space.widths:
            table.check_covers(resolution, width)
