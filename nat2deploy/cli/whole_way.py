"""run, quickstart: every stage in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nat2deploy.cli.options import Json, Workers, option_names
from nat2deploy.cli.progress import progress

if TYPE_CHECKING:
    from nat2deploy.deploy.verify import Verification


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(run)
    app.command()(quickstart)


def run(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="What to do, and with which data and budgets.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; runs/ and the config's name by default.")
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Profile, train, search, fine-tune, export and verify as a TOML file says.

    The same command goes on with a run that was stopped or killed. Exit code 1 when the bundle fails a check,
    such as a latency over the budget on the machine that it is for.
    """
    from nat2deploy.cli.render import print_outcome
    from nat2deploy.files import parse
    from nat2deploy.run.config import PipelineConfig, load_pipeline

    settings = load_pipeline(config)
    if workers is not None:
        given = settings.model_dump() | {"workers": workers}
        settings = parse(PipelineConfig, given, "options", option_names(("workers",)))
    from nat2deploy.run.pipeline import run_pipeline

    with progress() as report:
        outcome = run_pipeline(settings, out or Path("runs") / config.stem, report)
    print_outcome(outcome, as_json=as_json)
    _end(
        outcome.verification,
        f"name another network in [export], or raise the budget in {config} and give another --out",
    )


def quickstart(
    out: Annotated[Path, typer.Option("--out", help="The run's folder; an unfinished run goes on.")] = Path(
        "runs/quickstart"
    ),
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="Instead of its own, such as latency<=1ms on a slow machine."),
    ] = None,
    as_json: Json = False,
) -> None:
    """The whole way on scikit-learn's digits and this machine's CPU, in a few minutes.

    Exit code 1 when the bundle fails a check, such as a latency over the budget.
    """
    from nat2deploy.cli.render import print_outcome
    from nat2deploy.run.pipeline import quickstart_config, run_pipeline

    config = quickstart_config()
    if budget:
        config = config.model_copy(update={"budgets": tuple(budget)})
    with progress() as report:
        outcome = run_pipeline(config, out, report)
    print_outcome(outcome, as_json=as_json)
    _end(outcome.verification, "give another --out and a higher --budget, such as latency<=1ms")


def _end(verification: Verification, mend: str) -> None:
    """End with 1 and a line for each of the bundle's faults, ``mend`` where it is slow."""
    for fault in verification.faults:
        how = mend
        if fault.name in ("files", "parity"):
            how = "run the same command again"
        elif fault.name.startswith("top1"):
            how = "lower that budget, or train for more epochs"
        elif fault.anywhere:
            how = "raise that budget, or export in the precision that was searched"
        typer.echo(f"the bundle fails its check '{fault.name}': {fault.text}; {how}", err=True)
    if verification.faults:
        raise typer.Exit(1)
