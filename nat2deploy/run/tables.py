"""The front doors of latency tables: validate, compare, merge, draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nat2deploy.cost.certificate import Certificate
from nat2deploy.cost.contradiction import certified_errors, contradicts, relative_errors
from nat2deploy.cost.coverage import check_serves
from nat2deploy.cost.difference import Difference, compare_tables
from nat2deploy.cost.merging import merge_tables
from nat2deploy.cost.table import LatencyTable, load_table, save_table
from nat2deploy.cost.table_picture import draw_table
from nat2deploy.errors import UserError
from nat2deploy.measure.validation import validate_table
from nat2deploy.progress import Report, remarks, silent
from nat2deploy.remote.ssh import SshSettings
from nat2deploy.run.profile import measuring_device
from nat2deploy.space.search_space import SearchSpace, load_space

FEWEST_FRESH = 50
"""Networks that a validation measures by default, where the certificate is of no more."""


@dataclass(frozen=True)
class Validation:
    """A table's certificate before, and on a fresh set of networks.

    ``contradicted``: the fresh mean error is above 2 %, and above the certified one by more than chance.
    ``updated``: the table has the fresh certificate and its networks now. It keeps what it had when it is
    contradicted, when the certificate is of more networks than the fresh ones, or when these are not of the
    ``whole`` space of the table: of another that it serves, or of some of its resolutions and widths.
    """

    before: Certificate | None
    fresh: Certificate
    contradicted: bool
    updated: bool
    whole: bool = True


def validate(
    path: Path,
    *,
    space_name: str | None = None,
    networks: int | None = None,
    seed: int = 1,
    time_limit_s: float = 60.0,
    ssh: SshSettings | None = None,
    report: Report = silent,
) -> Validation:
    """Measure a fresh set of networks; update the table's certificate or contradict it.

    The machine is this one, or with ``ssh`` another; it must be the table's. As many networks are measured as
    the certificate is of, and at least 50, where ``networks`` does not say how many.

    Raises:
        UserError: no table, one of another machine or space, the table's own seed, too much noise, or a table
            that was made anew meanwhile.
    """
    table = load_table(path)
    if not path.exists():  # a shipped table's name
        raise UserError(f"{path} came with the package and is not written to; name a copy of the file")
    if seed == table.seed:
        raise UserError(f"--seed {seed} is the table's own; give another one, for networks that it never saw")
    space = _space(table, space_name, path, serves=True)
    certified = _certified(table)
    fresh, found = validate_table(
        table,
        space,
        networks=max(FEWEST_FRESH, certified) if networks is None else networks,
        seed=seed,
        time_limit_s=time_limit_s,
        device=measuring_device(table.target, ssh, report),
        progress=lambda share, text: report("validate", share, 1.0, text),
        remark=remarks(report),
    )
    now = load_table(path)  # another validation may have come first
    if now.model_copy(update=_certified_by(table)) != table:
        raise UserError(f"{path} was made anew meanwhile, and is left as it is; validate what it holds now")
    table, before, certified = now, now.certificate, _certified(now)
    contradicted = before is not None and contradicts(
        before, certified_errors(table, _own_space(table, space)), relative_errors(table, space, found)
    )
    whole = space.fingerprint == table.space_fingerprint and (
        (set(space.resolutions), set(space.widths)) == (set(table.resolutions), set(table.widths))
    )
    updated = not contradicted and whole and fresh.networks >= certified
    if updated:
        kept = [network for network in table.networks if network.role == "calibration"]
        news = {"certificate": fresh, "networks": (*kept, *found), "network_noise": fresh.noise}
        save_table(table.model_copy(update=news), path)
    return Validation(before, fresh, contradicted, updated, whole)


def _certified(table: LatencyTable) -> int:
    return 0 if table.certificate is None else table.certificate.networks


def _certified_by(table: LatencyTable) -> dict[str, Any]:
    """What a validation changes of a table."""
    return {name: getattr(table, name) for name in ("certificate", "networks", "network_noise")}


def diff(first: Path, second: Path, *, space_name: str | None = None) -> Difference:
    """Compare two tables of one space.

    Raises:
        UserError: a table that cannot be read, or two that have nothing in common.
    """
    one, two = load_table(first), load_table(second)
    return compare_tables(one, two, _space(one, space_name, first, whole=True))


def merge(
    paths: Sequence[Path], out: Path, *, space_name: str | None = None, report: Report = silent
) -> LatencyTable:
    """Merge tables of one space, target and machine into ``out``; calibrated and certified anew.

    Raises:
        UserError: a table that cannot be read, tables that do not go together, or an ``out`` of another kind.
    """
    if out.suffix != ".json":
        raise UserError(f"--out {out}: a latency table is a .json file; add that ending")
    tables = [load_table(path) for path in paths]
    merged, why_not = merge_tables(tables, _space(tables[0], space_name, paths[0], whole=True))
    save_table(merged, out)
    if why_not:
        remarks(report)(why_not)
    return merged


def plot(path: Path, out: Path, *, space_name: str | None = None) -> None:
    """Draw a table as the PNG or SVG file ``out``.

    Raises:
        UserError: a table that cannot be read or drawn, or matplotlib is missing.
    """
    table = load_table(path)
    draw_table(table, _space(table, space_name, path), out)


def _own_space(table: LatencyTable, space: SearchSpace) -> SearchSpace:
    """The space that a table is of, whole, where it can be found; else ``space``, which the table serves."""
    if space.fingerprint == table.space_fingerprint and space.resolutions == table.resolutions:
        return space
    try:
        own = load_space(table.space)
    except UserError:
        return space
    return own if own.fingerprint == table.space_fingerprint else space


def _space(
    table: LatencyTable, name: str | None, path: Path, *, whole: bool = False, serves: bool = False
) -> SearchSpace:
    """The table's space by its own name, or by the one given (a user's own space is a file).

    ``whole``: with all its resolutions and widths, not only the table's. ``serves``: it may be another one,
    that the table can predict, and is cut to what both have.
    """
    try:
        space = load_space(name or table.space)
    except UserError as error:
        if name is not None:
            raise
        raise UserError(
            f"table {path} is of space '{table.space}', no preset; give --space FILE.toml"
        ) from error
    if not serves:
        table.check_fingerprint(space)
        return space if whole else space.restrict(resolutions=table.resolutions, widths=table.widths)
    check_serves(table, space)
    return space.restrict(
        resolutions=tuple(r for r in space.resolutions if r in table.resolutions),
        widths=tuple(w for w in space.widths if w in table.widths),
    )
