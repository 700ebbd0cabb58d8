"""What a search config names, read and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.run.config import SearchConfig, SearchedSpace
from nat2deploy.run.cost_source import TargetTables, check_tables, costs_by, load_tables, precisions
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.regressors import check_installed
from nat2deploy.search.searchers import check_searcher
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, supernet_info
from nat2deploy.supernet.shipped import find_supernet


@dataclass(frozen=True)
class SearchInputs:
    """The inputs of a search."""

    info: SuperNetworkInfo
    space: SearchSpace
    tables: TargetTables
    data: ImageData
    objectives: Objectives


def read_inputs(config: SearchConfig) -> SearchInputs:
    """Read and check every input of a search.

    Raises:
        UserError: one that cannot be used.
    """
    budgets = parse_budgets(list(config.budgets))
    check_installed(config.settings.surrogates)
    check_searcher(config.settings.searcher)
    info, space = supernet_and_space(config.supernet, config.space)
    tables = load_tables(config.table, config.tables)
    check_tables(tables, space, allow_uncertified=config.allow_uncertified)
    data = load_data(config.data, base_resolution=max(space.resolutions))
    objectives = Objectives(
        costs_by(space, data.classes, tables),
        IntegerEncoding(space, precisions(tables)),
        budgets,
        config.settings.objectives,
        config.settings.accuracy_only,
    )
    return SearchInputs(info, space, tables, data, objectives)


def supernet_and_space(spec: str, chosen: SearchedSpace) -> tuple[SuperNetworkInfo, SearchSpace]:
    """Return a super-network's description, and the part of its space that is searched.

    Raises:
        UserError: no such super-network, one of another space, or a resolution that its space has not.
    """
    info = supernet_info(find_supernet(spec))
    if chosen.name is not None and load_space(chosen.name).fingerprint != info.space.fingerprint:
        raise UserError(
            f"super-network {spec} is of space '{info.space.name}', not '{chosen.name}'; "
            "give the space that it was trained on"
        )
    return info, info.space.restrict(resolutions=chosen.resolutions, widths=(info.width,))
