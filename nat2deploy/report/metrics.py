"""Costs as people read them: what they are called, and in which unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MEASURED = "measured_ms"
"""The measured median latency, beside the costs that were predicted."""

_NAMES = {
    MEASURED: ("measured latency", "ms"),
    "latency_ms": ("predicted latency", "ms"),
    "latency_p95_ms": ("predicted p95 latency", "ms"),
    "latency_p99_ms": ("predicted p99 latency", "ms"),
    "energy_mj": ("energy", "mJ"),
    "macs": ("MACs", ""),
    "params": ("parameters", ""),
    "size_mb": ("weights", "MB"),
    "memory_mb": ("peak activations", "MB"),
}
_FIRST = tuple(_NAMES)


@dataclass(frozen=True)
class Axis:
    """A cost as an axis: ``factor`` turns the metric's own unit into the ``unit`` that is shown."""

    metric: str
    name: str
    unit: str
    factor: float
    limit: float | None = None
    """The run's budget, in the metric's own unit."""

    @property
    def label(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def axes_of(metrics: Iterable[str], largest: dict[str, float], limits: dict[str, float]) -> list[Axis]:
    """Return the axes of metrics, measured latency first, in units that suit the largest values."""
    known = sorted(set(metrics), key=lambda m: (_rank(m), m))
    return [_axis(metric, largest.get(metric, 0.0), limits.get(metric)) for metric in known]


def _rank(metric: str) -> int:
    base = metric.partition("@")[0]
    return _FIRST.index(base) if base in _FIRST else len(_FIRST)


def _axis(metric: str, largest: float, limit: float | None) -> Axis:
    base, _, target = metric.partition("@")
    name, unit = _NAMES.get(base, (base.replace("_", " "), ""))
    factor = 1.0
    if base in ("macs", "params"):
        unit, factor = next(
            (u, f)
            for u, f, least in (("G", 1e-9, 1e9), ("M", 1e-6, 1e6), ("k", 1e-3, 1e3), ("", 1.0, 0.0))
            if largest >= least
        )
    elif base in ("size_mb", "memory_mb") and largest < 1:
        unit, factor = "kB", 1e3
    return Axis(metric, f"{name} on {target}" if target else name, unit, factor, limit)
