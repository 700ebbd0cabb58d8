"""How long a profile has to measure for intervals of its medians, and what to say when it may not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nat2deploy.measure.clock import LEAST_CALLS
from nat2deploy.measure.interleave import CHECK_EVERY_MS, SETTLE_MS, VISIT_MS, WARM_UP_SHARE
from nat2deploy.measure.statistics import FEWEST_ROUNDS

_LOOKS = 1 + (SETTLE_MS + VISIT_MS) / CHECK_EVERY_MS  # at the reference workload, beside the visits
_CALLS_ONCE = 10  # of a slow candidate: six to warm up, one to settle, three that are timed


def blocks_remark(blocks: int, every_size: int, time_limit_s: float, share: float) -> str:
    """Say that blocks may not get enough rounds, or nothing where they do.

    They are taken for short: nothing is known of them before.

    Args:
        blocks: how many are measured.
        every_size: as of ``ProfilePlan``.
        time_limit_s: of the whole profile, in seconds.
        share: of the limit that goes to the blocks' latencies.
    """
    needed_s = _rounds_s([0.0] * blocks) / share
    if time_limit_s >= needed_s:
        return ""
    each_ms = 1000 * time_limit_s * share / blocks
    return (
        f"{blocks} blocks in {time_limit_s:g} s: about {each_ms:.0f} ms each, too little for {FEWEST_ROUNDS} "
        f"rounds; raise the time limit (--time-limit) to {_rounded(needed_s)} s or more, or measure fewer "
        f"sizes (--every-size {every_size + 1})"
    )


def networks_remark(latencies_ms: Sequence[float], time_limit_s: float, left_s: float) -> str:
    """Say that networks may not get enough rounds, or nothing where they do.

    Args:
        latencies_ms: of the networks, as far as they are known before.
        time_limit_s: of the whole profile, in seconds.
        left_s: seconds of it that are left for the networks.
    """
    needed_s = _rounds_s(latencies_ms)
    if left_s >= needed_s:
        return ""
    once_s = _CALLS_ONCE * math.fsum(latencies_ms) / 1000
    beyond = f"; measuring each once takes about {once_s:.0f} s all the same" if once_s > left_s else ""
    return (
        f"{len(latencies_ms)} networks need about {needed_s:.0f} s for {FEWEST_ROUNDS} rounds, the time "
        f"limit leaves them {left_s:.0f} s{beyond}; raise it (--time-limit) to "
        f"{_rounded(time_limit_s * needed_s / left_s)} s or more for exact medians"
    )


def _rounds_s(latencies_ms: Sequence[float]) -> float:
    """Seconds for the fewest rounds that an interval needs, warm-up included."""
    visits_ms = math.fsum(max(SETTLE_MS, ms) + max(VISIT_MS, LEAST_CALLS * ms) for ms in latencies_ms)
    return FEWEST_ROUNDS * visits_ms * _LOOKS / (1 - WARM_UP_SHARE) / 1000


def _rounded(seconds: float) -> int:
    """Up to the next ten seconds."""
    return 10 * math.ceil(seconds / 10)
