"""table kit and table import: devices without ssh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nat2deploy.cli.options import (
    Calibration,
    EverySize,
    HeldOut,
    Interval,
    Json,
    Resolutions,
    Seed,
    Space,
    Threads,
    TimeLimit,
)
from nat2deploy.cli.profile_option import ProfileFile, chosen_profile, remark_on
from nat2deploy.cli.profiling import profile_config, profiled_space
from nat2deploy.cli.progress import progress
from nat2deploy.cli.tables import table_app


def register(app: typer.Typer) -> None:
    """Add the commands to those of tables."""
    table_app.command("kit")(kit)
    table_app.command("import")(table_import)


def kit(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="The kit to write, a .zip file.")],
    space: Space = "nano",
    profile_file: ProfileFile = None,
    precision: Annotated[str, typer.Option(help="Number format of the networks: fp32 or int8.")] = "fp32",
    threads: Threads = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    resolution_list: Resolutions = None,
    interval: Interval = 0.01,
    time_limit: TimeLimit = 300.0,
    calibration: Calibration = 24,
    held_out: HeldOut = 50,
    every_size: EverySize = 1,
    seed: Seed = 0,
) -> None:
    """Pack what measures a search space on a device without ssh: run measure.py there, then table import.

    Example: nat2deploy table kit --space nano --threads 4 --out kit.zip
    """
    from nat2deploy.remote.packing import check_target
    from nat2deploy.run.kit import make_kit
    from nat2deploy.target import make_target

    chosen = None
    if profile_file is not None:
        chosen = chosen_profile(context, profile_file, "precision", "threads", "batch")
        target = chosen.target
        check_target(target)
        remark_on(chosen)
    else:
        target = make_target("cpu", "onnxruntime", precision, threads, batch, elsewhere=True)
    config = profile_config(
        interval=interval,
        time_limit=time_limit,
        calibration=calibration,
        held_out=held_out,
        every_size=every_size,
        warmup_ms=None if chosen is None else chosen.warmup_ms,
    )
    with progress() as report:
        make_kit(
            profiled_space(space, resolution_list),
            target,
            config,
            out,
            seed=seed,
            power_mode="" if chosen is None else chosen.power_mode,
            report=report,
        )
    typer.echo(f"wrote {out}; unpack it on the device and run python3 measure.py")


def table_import(
    result: Annotated[Path, typer.Argument(metavar="RESULT.json", help="What measure.py wrote.")],
    kit: Annotated[Path, typer.Option("--kit", help="The kit that was unpacked on the device.")],
    out: Annotated[Path, typer.Option("--out", help="The table to write, a .json file.")],
    as_json: Json = False,
) -> None:
    """Make a calibrated, certified table of what a kit has measured on a device."""
    from nat2deploy.cli.render_table import print_table
    from nat2deploy.run.kit import import_result

    with progress() as report:
        table = import_result(result, kit, out, report=report)
    print_table(table, as_json=as_json, written=out)
