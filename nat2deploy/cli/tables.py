"""table: look at latency tables, validate, compare, merge and draw them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nat2deploy.cli.commands import Commands
from nat2deploy.cli.options import PYTHON, Json, Python, SshOption, ssh_settings
from nat2deploy.cli.progress import progress
from nat2deploy.errors import UserError
from nat2deploy.seed import LARGEST_SEED

table_app = Commands(
    no_args_is_help=True,
    help="Look at latency tables, validate, compare, merge, draw, and make them of kits.",
)

Table = Annotated[
    Path, typer.Argument(metavar="TABLE", help="A latency table, a .json file, or a shipped one's name.")
]
OwnSpace = Annotated[
    str | None, typer.Option("--space", help="The table's space, where it is a .toml of your own.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(table_app, name="table")


@table_app.command("show")
def table_show(
    path: Table,
    entries: Annotated[int, typer.Option(min=0, help="Print so many of the slowest blocks.")] = 10,
    as_json: Json = False,
) -> None:
    """Print a latency table: target, certificate, slowest blocks."""
    from nat2deploy.cli.render_table import print_table
    from nat2deploy.cost.table import load_table

    print_table(load_table(path), as_json=as_json, entries=entries)


@table_app.command("validate")
def table_validate(
    path: Table,
    networks: Annotated[
        int | None,
        typer.Option(
            min=4, help="Fresh networks to measure; by default as many as the certificate is of, 50 at least."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Another one than the table's.")] = 1,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds of measuring.")] = 60.0,
    space: OwnSpace = None,
    device: Annotated[
        str, typer.Option(help="The table's machine: this one (cpu), or ssh://user@host[:port].")
    ] = "cpu",
    python: Python = PYTHON,
    ssh_option: SshOption = None,
    as_json: Json = False,
) -> None:
    """Measure fresh whole networks on the table's machine, and certify it anew or contradict it.

    Exit code 1 when they contradict its certificate: their mean error is above 2 %, and above the certified
    one by more than chance. The table is left as it is then, and when its certificate is of more networks.
    """
    from nat2deploy.cli.render_table import print_validation
    from nat2deploy.run.tables import validate

    ssh = ssh_settings(device, python, ssh_option)
    if ssh is None and device != "cpu":
        raise UserError(f"--device {device}: write cpu, for this machine, or ssh://user@host")
    with progress() as report:
        found = validate(
            path,
            space_name=space,
            networks=networks,
            seed=seed,
            time_limit_s=time_limit,
            ssh=ssh,
            report=report,
        )
    print_validation(found, path, as_json=as_json)
    if found.contradicted:
        raise typer.Exit(1)


@table_app.command("diff")
def table_diff(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A latency table.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one of its space.")],
    blocks: Annotated[int, typer.Option(min=0, help="Print so many of the most different blocks.")] = 10,
    space: OwnSpace = None,
    as_json: Json = False,
) -> None:
    """Compare two tables of one space: what was around them, blocks, and random networks."""
    from nat2deploy.cli.render_table import print_difference
    from nat2deploy.run.tables import diff

    print_difference(diff(first, second, space_name=space), blocks=blocks, as_json=as_json)


@table_app.command("merge")
def table_merge(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE", help="Two latency tables or more.")],
    out: Annotated[Path, typer.Option("--out", help="The table to write, a .json file.")],
    space: OwnSpace = None,
    as_json: Json = False,
) -> None:
    """Make tables of one space, target and machine one, such as of several resolutions."""
    from nat2deploy.cli.render_table import print_table
    from nat2deploy.run.tables import merge

    with progress() as report:
        merged = merge(tables, out, space_name=space, report=report)
    print_table(merged, as_json=as_json, written=out)


@table_app.command("plot")
def table_plot(
    path: Table,
    out: Annotated[Path, typer.Option("--out", help="The picture to write, a .png or .svg file.")],
    space: OwnSpace = None,
) -> None:
    """Draw predicted against measured latency, and what the blocks of each stage cost."""
    from nat2deploy.run.tables import plot

    plot(path, out, space_name=space)
    typer.echo(f"wrote {out}")
