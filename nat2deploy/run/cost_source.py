"""The costs of a space, by the latency tables that a user names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nat2deploy.cost.coverage import check_space
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.precisions import CostSource, PrecisionCosts
from nat2deploy.cost.table import LatencyTable, load_table
from nat2deploy.cost.targets import TargetCosts
from nat2deploy.errors import UserError
from nat2deploy.precision import EVERY_PRECISION, Precision
from nat2deploy.run.config import Files
from nat2deploy.space.search_space import SearchSpace

TargetTables = Mapping[str, Sequence[LatencyTable]]
"""Tables by the target's name, which is empty for a single one without; several are one of each precision."""


def load_tables(table: Files | None, tables: Mapping[str, Files]) -> TargetTables:
    """Read the latency tables of a search.

    Raises:
        UserError: one cannot be read, or several of one target that do not differ in precision alone.
    """
    given = {"": table} if table is not None else dict(tables)
    return {name: _of_one_target(name, files) for name, files in given.items()}


def _of_one_target(name: str, files: Files) -> list[LatencyTable]:
    """Read a target's tables, the most exact precision first."""
    paths = [files] if isinstance(files, str) else list(files)
    found = [load_table(Path(path)) for path in paths]
    for path, table in zip(paths[1:], found[1:], strict=True):
        with _of_target(name):
            _check_pair(paths[0], found[0], path, table)
    precisions = [table.target.precision for table in found]
    for path, precision in zip(paths, precisions, strict=True):
        if precisions.count(precision) > 1:
            with _of_target(name):
                raise UserError(
                    f"table {path} is not the only one of {precision}; give one table a precision, or each "
                    f"of several targets a name, such as --table pi5={path}"
                )
    return sorted(found, key=lambda table: EVERY_PRECISION.index(table.target.precision))


def _check_pair(first: str, one: LatencyTable, second: str, other: LatencyTable) -> None:
    same = ("device", "backend", "threads", "batch")
    if not one.fingerprint.same_machine(other.fingerprint) or any(
        getattr(one.target, field) != getattr(other.target, field) for field in same
    ):
        here, there = one.fingerprint.told_apart(other.fingerprint)
        raise UserError(
            f"tables {first} ({here}: {one.target}) and {second} ({there}: {other.target}) are of different "
            "targets; give each a name, such as --table pi5=FILE"
        )


def precisions(tables: TargetTables) -> tuple[Precision, ...]:
    """Return the precisions that a search chooses from; none where each target has one table.

    Raises:
        UserError: a target lacks one that another has.
    """
    have = {name: tuple(one.target.precision for one in held) for name, held in tables.items()}
    if all(len(held) == 1 for held in have.values()):
        return ()
    wanted = {precision for held in have.values() for precision in held}
    for name, held in have.items():
        lacking = [precision for precision in EVERY_PRECISION if precision in wanted.difference(held)]
        if lacking:
            raise UserError(
                f"target {name} has no table of {lacking[0]}, another one has; give each target a table of "
                "every precision"
            )
    return next(iter(have.values()))


def symmetric_int8(tables: TargetTables) -> tuple[bool, ...]:
    """Return which forms of int8 the targets take: symmetric ones on GPUs (see ``training.simulate``)."""
    eight = [one for held in tables.values() for one in held if one.target.precision == "int8"]
    return tuple(sorted({one.target.kind == "cuda" for one in eight}))


def table_of(tables: Sequence[LatencyTable], precision: Precision | None) -> LatencyTable:
    """Return a target's table of a network's precision: the only one where none was chosen.

    Raises:
        UserError: there is none.
    """
    for table in tables:
        if precision in (None, table.target.precision):
            return table
    have = " and ".join(table.target.precision for table in tables)
    raise UserError(f"the network is of {precision}, the run's tables are of {have}; they have been changed")


def costs_by(space: SearchSpace, classes: int, tables: TargetTables) -> CostSource:
    """Return the costs of a space by tables as ``load_tables`` returns them.

    Raises:
        UserError: a table of another space, or a target that lacks a precision.
    """
    choices = precisions(tables)
    if not choices:
        return _in_one_precision(space, classes, tables, None)
    return PrecisionCosts({p: _in_one_precision(space, classes, tables, p) for p in choices})


def _in_one_precision(
    space: SearchSpace, classes: int, tables: TargetTables, precision: Precision | None
) -> CostModel | TargetCosts:
    chosen = {name: table_of(held, precision) for name, held in tables.items()}
    if chosen.keys() <= {""}:
        return CostModel(space, classes, chosen.get(""))
    return TargetCosts(space, classes, chosen)


def cost_source(
    space: SearchSpace, classes: int, table: Files | None, tables: Mapping[str, Files]
) -> CostSource:
    """Return the costs of a space by one table, by several, or by none.

    Raises:
        UserError: a table that cannot be read, or one of another space.
    """
    return costs_by(space, classes, load_tables(table, tables))


def check_tables(tables: TargetTables, space: SearchSpace, *, allow_uncertified: bool) -> None:
    """Check that every network of ``space`` can be looked up in each table, and that each has a certificate.

    Raises:
        UserError: one cannot serve; names it where there are several.
    """
    for name, table in ((name, table) for name, held in tables.items() for table in held):
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
