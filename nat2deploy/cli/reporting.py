"""report, dashboard."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from nat2deploy.cli.options import Json

AnyRun = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="The folder of a search, or of a whole pipeline such as quickstart's."
    ),
]
WhichBundle = Annotated[
    Path | None,
    typer.Option("--bundle", help="A bundle to show the evidence of; a pipeline's own by default."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(report)
    app.command()(dashboard)


def report(
    run: AnyRun,
    out: Annotated[
        Path | None, typer.Option("--out", help="An .html file; RUN/report.html by default.")
    ] = None,
    bundle: WhichBundle = None,
    as_json: Json = False,
) -> None:
    """Write what a run did as one HTML file that works offline, and its pictures as PNGs beside it.

    Also of a search that runs or was stopped.

    Example: nat2deploy report runs/quickstart
    """
    from nat2deploy.cli.render_report import print_report
    from nat2deploy.report.write import write_report

    print_report(write_report(run, out, bundle), as_json=as_json)


def dashboard(
    run: AnyRun,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port to listen on; 0 takes a free one.")
    ] = 8765,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; by default this machine alone can look.")
    ] = "127.0.0.1",
    bundle: WhichBundle = None,
) -> None:
    """Serve a run's report in the browser and keep it up to date while the run goes on; Ctrl-C ends it.

    Example: nat2deploy dashboard runs/quickstart --port 8765
    """
    from nat2deploy.cli.console import console
    from nat2deploy.report.dashboard import Dashboard

    with Dashboard(run, host=host, port=port, bundle=bundle) as server:
        console.print(f"{server.url} shows {run}; Ctrl-C ends it", soft_wrap=True)
        with suppress(KeyboardInterrupt):  # how it is ended
            server.serve()
