"""Budgets: ``latency<=5ms``, ``top1>=90%``, and where several targets have a table ``latency@pi5<=30ms``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from nat2deploy.cost.metric_names import metric_on
from nat2deploy.errors import UserError

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_BUDGET = re.compile(
    rf"\s*([a-z0-9_.@-]+)\s*(<=|>=)\s*({_NUMBER})\s*([A-Za-zµ%]*)\s*", re.ASCII | re.IGNORECASE
)
_TARGET = re.compile(r"[A-Za-z0-9_-]{1,40}")
_TIME = {"ms": 1.0, "us": 1e-3, "s": 1e3}
_ENERGY = {"mJ": 1.0, "uJ": 1e-3, "J": 1e3}
_BYTES = {"MB": 1.0, "kB": 1e-3, "KB": 1e-3, "GB": 1e3}
_COUNT = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}

# Word -> (metric, what each unit is worth in the metric's own unit, an example).
_METRICS: dict[str, tuple[str, dict[str, float], str]] = {
    "latency": ("latency_ms", _TIME, "latency<=5ms"),
    "latency.p95": ("latency_p95_ms", _TIME, "latency.p95<=6ms"),
    "latency.p99": ("latency_p99_ms", _TIME, "latency.p99<=8ms"),
    "energy": ("energy_mj", _ENERGY, "energy<=5mJ"),
    "macs": ("macs", _COUNT, "macs<=200M"),
    "params": ("params", _COUNT, "params<=3M"),
    "size": ("size_mb", _BYTES, "size<=4MB"),
    "memory": ("memory_mb", _BYTES, "memory<=512kB"),
    "top1": ("top1", {"": 1.0, "%": 0.01}, "top1>=90%"),
}


@dataclass(frozen=True)
class Budget:
    """A hard limit on one metric, in the metric's unit: an upper one, or a lower one for ``top1``.

    ``metric`` names its target too where the text does, such as ``latency_ms@pi5``.
    """

    text: str
    metric: str
    limit: float

    def violation(self, value: float) -> float:
        """How far a value is over the limit, relative to it; at most 0 when it is kept."""
        if self.metric == "top1":
            return self.limit - value
        return (value - self.limit) / self.limit  # not value / limit - 1: that is 0 just over the limit

    def kept_by(self, value: float) -> bool:
        """Whether a value keeps the budget."""
        return value >= self.limit if self.metric == "top1" else value <= self.limit


def parse_budget(text: str) -> Budget:
    """Read one budget.

    Raises:
        UserError: no budget, an unknown metric or unit, or the wrong sense of the limit.
    """
    examples = ", ".join(example for *_, example in _METRICS.values())
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise UserError(f"budget {text[:60]!r} cannot be read; write it like {examples}")
    name, sense, number, unit = match.groups()
    word, _, target = name.partition("@")
    if word not in _METRICS or ("@" in name and not is_target_name(target)):
        raise UserError(
            f"budget {text[:60]!r}: no metric '{name}'; use one of {', '.join(_METRICS)}, each with @TARGET "
            "behind it where several targets have a table"
        )
    metric, units, example = _METRICS[word]
    if unit not in units:
        known = ", ".join(unit or "no unit" for unit in units)
        raise UserError(f"budget {text[:60]!r}: unit '{unit or 'none'}'; use {known}, as in {example}")
    if sense != (">=" if metric == "top1" else "<="):
        raise UserError(f"budget {text[:60]!r}: the limit points the wrong way; write it like {example}")
    limit = float(number)
    if 0.0 < limit < math.inf:
        limit = float(Decimal(number) * Decimal(str(units[unit])))  # as floats, 95 * 0.01 is over 0.95
    if not (0.0 < limit < math.inf) or (metric == "top1" and limit > 1.0):
        raise UserError(f"budget {text[:60]!r}: the limit is out of range; write it like {example}")
    return Budget("".join(text.split()), f"{metric}@{target}" if target else metric, limit)


def parse_budgets(texts: list[str]) -> tuple[Budget, ...]:
    """Read several budgets, at most one a metric.

    Raises:
        UserError: one cannot be read, or two limit the same metric.
    """
    budgets = tuple(parse_budget(text) for text in texts)
    _check_distinct(budgets)
    return budgets


def budgets_on(budgets: tuple[Budget, ...], targets: tuple[str, ...]) -> tuple[Budget, ...]:
    """Return budgets whose metrics name their target, where the costs are of ``targets``.

    Raises:
        UserError: as ``metric_on``, or two limit the same metric.
    """
    found = []
    for budget in budgets:
        try:
            found.append(replace(budget, metric=metric_on(budget.metric, targets)))
        except UserError as error:
            raise UserError(f"budget '{budget.text}': {error}") from error
    _check_distinct(tuple(found))
    return tuple(found)


def cost_metric(text: str) -> str:
    """Return the metric of a budget's word or of a metric's own name, each with or without a target.

    Raises:
        UserError: no cost.
    """
    word, at, target = text.partition("@")
    names = {metric: metric for metric, *_ in _METRICS.values() if metric != "top1"}
    names |= {name: metric for name, (metric, *_) in _METRICS.items() if metric != "top1"}
    if word not in names or (at and not is_target_name(target)):
        raise UserError(f"no cost '{text[:60]}'; use one of {', '.join(dict.fromkeys(names))}")
    return names[word] + at + target


def budget_word(metric: str) -> str:
    """Return what a metric is called in a budget, its target included."""
    base, at, target = metric.partition("@")
    return next(word for word, (known, *_) in _METRICS.items() if known == base) + at + target


def is_target_name(name: str) -> bool:
    """Whether a target may be called so: letters, digits, hyphens and underscores."""
    return _TARGET.fullmatch(name) is not None


def _check_distinct(budgets: tuple[Budget, ...]) -> None:
    for index, budget in enumerate(budgets):
        for other in budgets[:index]:
            if other.metric == budget.metric:
                raise UserError(f"budgets '{other.text}' and '{budget.text}' limit the same metric; keep one")


def violation(budgets: tuple[Budget, ...], values: Mapping[str, float]) -> float:
    """Sum of the relative violations of all budgets; 0 when all are kept."""
    return sum(
        max(0.0, budget.violation(values[budget.metric]))
        for budget in budgets
        if not budget.kept_by(values[budget.metric])
    )


def feasible(budgets: tuple[Budget, ...], values: Mapping[str, float]) -> bool:
    """Whether every budget is kept."""
    return all(budget.kept_by(values[budget.metric]) for budget in budgets)


def format_cost(metric: str, value: float, more: int = 0) -> str:
    """A cost with its unit, as people write it, with so many ``more`` digits than usual."""
    if metric.startswith("latency"):
        return f"{value:.{3 + more}f} ms"
    if metric.startswith("energy"):
        return f"{value:.{3 + more}f} mJ"
    if metric.startswith(("size", "memory")):
        return f"{value:.{2 + more}f} MB" if value >= 0.1 else f"{1e3 * value:.{1 + more}f} kB"
    if metric == "top1":
        return f"{100 * value:.{2 + more}f} %"
    for unit, worth in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= worth:
            return f"{value / worth:.{2 + more}f}{unit}"
    return f"{value:g}"


def format_beside(budget: Budget, value: float) -> str:
    """A cost that a budget is not kept by, with as many digits as tell it from the limit."""
    said = (format_cost(budget.metric, value, more) for more in range(9))
    limits = (format_cost(budget.metric, budget.limit, more) for more in range(9))
    pairs = list(zip(said, limits, strict=True))
    return next((text for text, limit in pairs if text != limit), pairs[-1][0])
