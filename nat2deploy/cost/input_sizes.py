"""One block at several input sizes: which of them to measure, and where the others lie in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from nat2deploy.space.signature import BlockSignature


def without_size(signature: BlockSignature) -> BlockSignature:
    """The block whatever its input size."""
    return replace(signature, height=0, width=0)


def work(signature: BlockSignature) -> float:
    """What a block's latency grows with over input sizes: its operations, or its area where it has none."""
    return float(signature.macs or signature.height * signature.width)


def thinned(signatures: Sequence[BlockSignature], every: int) -> list[BlockSignature]:
    """Keep each block's smallest and largest input size, and every ``every``-th in between, in order.

    Blocks of one or two sizes are kept whole; what is left out lies between two that are kept.
    """
    groups: dict[BlockSignature, list[BlockSignature]] = defaultdict(list)
    for signature in signatures:
        groups[without_size(signature)].append(signature)
    kept: set[BlockSignature] = set()
    for group in groups.values():
        ordered = sorted(group, key=work)
        kept.update(ordered[::every])
        kept.add(ordered[-1])
    return [signature for signature in signatures if signature in kept]
