"""The evolutionary algorithms of the inner search, all pymoo's."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.operators.selection.tournament import TournamentSelection

from nat2deploy.errors import UserError
from nat2deploy.plugins import Registry
from nat2deploy.search.survival import Floats

Make = Callable[..., Any]


def check_searcher(name: str) -> None:
    """Refuse a searcher whose package is not installed.

    Raises:
        UserError: names the package and how to install it.
    """
    if name == "age-moea-2" and importlib.util.find_spec("numba") is None:
        raise UserError(
            "searcher 'age-moea-2' needs the package numba; pip install 'nat2deploy[age-moea]', "
            "or choose another searcher"
        )


def _by_objectives(directions: Floats, **common: Any) -> Any:
    """NAT2's choice: NSGA-II for two objectives, NSGA-III on Riesz directions for more."""
    if directions.shape[1] == 2:
        return NSGA2(**common)
    return _nsga3(directions, **common)


def _nsga2(directions: Floats, **common: Any) -> Any:
    return NSGA2(**common)


def _nsga3(directions: Floats, **common: Any) -> Any:
    with redirect_stdout(io.StringIO()):  # it warns of populations smaller than the directions, beside JSON
        return NSGA3(ref_dirs=directions, selection=TournamentSelection(func_comp=_by_violation), **common)


def _by_violation(population: Any, pairs: Any, random_state: Any, **_: Any) -> Any:
    """The less violating one of each pair [T, 2], either of equal ones, as NSGA-III has it.

    pymoo's own asks another generator for equal ones of which one is infeasible, which no seed drives.
    """
    violation = population.get("CV")[:, 0]
    winners = [
        (a if violation[a] < violation[b] else b)
        if violation[a] != violation[b]
        else random_state.choice([a, b])
        for a, b in pairs
    ]
    return np.array(winners, dtype=np.int64)[:, None]


def _age_moea_2(directions: Floats, **common: Any) -> Any:
    """Panichella, "An Improved Pareto Front Modeling Algorithm" (2022)."""
    check_searcher("age-moea-2")
    from pymoo.algorithms.moo.age2 import AGEMOEA2

    return AGEMOEA2(**common)


SEARCHERS: Registry[Make] = Registry(
    "searcher",
    Callable,  # type: ignore[arg-type]  # whatever can be called with directions and pymoo's arguments
    {"by-objectives": _by_objectives, "nsga2": _nsga2, "nsga3": _nsga3, "age-moea-2": _age_moea_2},
)


def make_searcher(name: str, directions: Floats, **common: Any) -> Any:
    """Return the pymoo algorithm of a name for reference directions [points, objectives].

    ``common`` goes to the algorithm: population size, sampling and operators. One objective leaves nothing to
    trade off: whatever the name, it is searched by a genetic algorithm.

    Raises:
        UserError: the searcher's package is not installed.
    """
    if directions.shape[1] == 1:
        return GA(**common)
    return SEARCHERS[name](directions, **common)
