"""What a search config names, read and checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
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
from nat2deploy.supernet.checkpoint import supernet_info
from nat2deploy.supernet.shipped import find_supernet


@dataclass(frozen=True)
class SearchInputs:
    """The inputs of a search."""

    space: SearchSpace
    tables: TargetTables
    data: ImageData
    objectives: Objectives


def read_inputs(config: SearchConfig, supernets: Sequence[str]) -> SearchInputs:
    """Read and check every input of a search.

    Args:
        config: of the search.
        supernets: those that hold its weights now: the config's own, or what it made of them.

    Raises:
        UserError: one that cannot be used.
    """
    budgets = parse_budgets(list(config.budgets))
    check_installed(config.settings.surrogates)
    check_searcher(config.settings.searcher)
    space = searched_space(supernets, config.space)
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
    return SearchInputs(space, tables, data, objectives)


def searched_space(supernets: Sequence[str], chosen: SearchedSpace) -> SearchSpace:
    """Return the part of super-networks' space that is searched: all their widths, and common resolutions.

    Raises:
        UserError: no such super-network, one of another space, two of one width, no common resolution, or
            one that their space has not.
    """
    infos = [supernet_info(find_supernet(spec)) for spec in supernets]
    first = infos[0].space
    for spec, info in zip(supernets, infos, strict=True):
        if chosen.name is not None and load_space(chosen.name).fingerprint != info.space.fingerprint:
            raise UserError(
                f"super-network {spec} is of space '{info.space.name}', not '{chosen.name}'; "
                "give the space that it was trained on"
            )
        if info.space.fingerprint != first.fingerprint:
            raise UserError(
                f"super-network {spec} is of space '{info.space.name}', {supernets[0]} of '{first.name}'; "
                "super-networks side by side are of one space"
            )
    widths = [width for info in infos for width in info.widths]
    twice = next((width for width in widths if widths.count(width) > 1), None)
    if twice is not None:
        raise UserError(f"two of the super-networks are of width {twice:g}; give one of each width")
    resolutions = set(first.resolutions).intersection(*(info.space.resolutions for info in infos))
    if not resolutions:
        raise UserError("the super-networks have no resolution in common; train them at the same")
    whole = first.model_copy(
        update={"widths": tuple(sorted(widths)), "resolutions": tuple(sorted(resolutions))}
    )
    if lacking := sorted(set(chosen.resolutions or ()) - resolutions):
        have = ", ".join(map(str, whole.resolutions))
        raise UserError(
            f"resolution {lacking[0]} is not one that super-network {' and '.join(supernets)} was trained or "
            f"searched at; choose from {have}, or give a super-network that was"
        )
    return whole.restrict(resolutions=chosen.resolutions)
