"""The costs of a space, by the latency tables that a user names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nat2deploy.cost.coverage import check_space
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import LatencyTable, load_table
from nat2deploy.cost.targets import CostSource, TargetCosts
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import SearchSpace


def load_tables(table: str | None, tables: Mapping[str, str]) -> dict[str, LatencyTable]:
    """Read the latency tables of a search by the target's name, which is empty for a single one without.

    Raises:
        UserError: one cannot be read.
    """
    files = {"": table} if table is not None else dict(tables)
    return {name: load_table(Path(path)) for name, path in files.items()}


def costs_by(space: SearchSpace, classes: int, tables: Mapping[str, LatencyTable]) -> CostSource:
    """Return the costs of a space by tables as ``load_tables`` returns them.

    Raises:
        UserError: a table of another space.
    """
    if tables.keys() <= {""}:
        return CostModel(space, classes, tables.get(""))
    return TargetCosts(space, classes, tables)


def cost_source(space: SearchSpace, classes: int, table: str | None, tables: Mapping[str, str]) -> CostSource:
    """Return the costs of a space by one table, by several, or by none.

    Raises:
        UserError: a table that cannot be read, or one of another space.
    """
    return costs_by(space, classes, load_tables(table, tables))


def check_tables(tables: Mapping[str, LatencyTable], space: SearchSpace, *, allow_uncertified: bool) -> None:
    """Check that every network of ``space`` can be looked up in each table, and that each has a certificate.

    Raises:
        UserError: one cannot serve; names it where there are several.
    """
    for name, table in tables.items():
        with _of_target(name):
            check_space(table, space)
            if table.certificate is None and not allow_uncertified:
                raise UserError(
                    "the latency table has no certificate; profile again on a quiet machine, "
                    "or say --allow-uncertified"
                )


@contextmanager
def _of_target(name: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"target {name}: {error}" if name else str(error)) from error
