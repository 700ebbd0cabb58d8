"""What costs are called where there are several targets: ``latency_ms@pi5``; light to import."""

from __future__ import annotations

from nat2deploy.errors import UserError

SHARED = ("macs", "params")
"""What a network costs wherever it runs."""


def at(metric: str, target: str) -> str:
    """The metric's name on a target."""
    return metric if metric in SHARED else f"{metric}@{target}"


def metric_on(metric: str, targets: tuple[str, ...]) -> str:
    """Return the full name of a metric where the costs are of ``targets``; with one it need not be said.

    Raises:
        UserError: an unknown target, one where there are none, or none where there are several.
    """
    base, _, name = metric.partition("@")
    if base in (*SHARED, "top1"):
        if name:
            raise UserError(f"'{base}' is the same on every target; write it without @{name}")
        return base
    if name and name not in targets:
        have = f"the tables are of {', '.join(targets)}" if targets else "give --table NAME=FILE"
        raise UserError(f"there is no target '{name}'; {have}")
    if not name and len(targets) > 1:
        names = " or ".join(f"@{target}" for target in targets)
        raise UserError(f"'{base}' differs between targets; say which by {names} behind it")
    return at(base, name or targets[0]) if targets else base
