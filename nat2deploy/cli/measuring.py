"""profile, devices, table, costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nat2deploy.cli.options import Json, Resolutions, Seed, Space, resolutions
from nat2deploy.cli.progress import progress

table_app = typer.Typer(no_args_is_help=True, help="Look at latency tables.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(profile)
    app.command()(devices)
    app.command()(costs)
    app.add_typer(table_app, name="table")


def profile(
    out: Annotated[Path, typer.Option("--out", help="The table to write, a .json file.")],
    space: Space = "nano",
    profile_file: Annotated[
        Path | None, typer.Option("--profile", help="A file of profiles/ instead of the options below.")
    ] = None,
    device: Annotated[str, typer.Option(help="What to measure on; `nat2deploy devices` lists them.")] = "cpu",
    backend: Annotated[
        str, typer.Option(help="onnxruntime, openvino, torch, or auto: the fastest of them.")
    ] = "onnxruntime",
    precision: Annotated[
        str, typer.Option(help="Number format of the networks: fp32, int8, or bf16 (openvino).")
    ] = "fp32",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    resolution_list: Resolutions = None,
    interval: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Wanted relative half width of confidence intervals.")
    ] = 0.01,
    time_limit: Annotated[float, typer.Option(min=5, help="Seconds for measuring blocks.")] = 300.0,
    calibration: Annotated[int, typer.Option(min=8, help="Whole networks to calibrate on.")] = 24,
    held_out: Annotated[int, typer.Option(min=8, help="Whole networks for the certificate.")] = 20,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure every block of a search space on this machine into a certified latency table.

    An interrupted profile goes on where it was. With --backend auto, a few networks are first measured on
    each installed backend that runs the precision, and the fastest one is profiled.

    Example: nat2deploy profile --device cpu --threads 1 --space nano --out table.json
    """
    from nat2deploy.cli.render import print_backends, print_table
    from nat2deploy.run.config import ProfileConfig, SpaceConfig
    from nat2deploy.run.profile import fastest_backend
    from nat2deploy.run.profile import profile as run_profile
    from nat2deploy.target import load_profile, make_target, make_targets

    space_config = SpaceConfig(name=space, resolutions=resolutions(resolution_list))
    config = ProfileConfig(
        precision=interval,
        time_limit_s=time_limit,
        calibration_networks=calibration,
        held_out_networks=held_out,
    )
    if profile_file is not None:
        target = load_profile(profile_file).target
        target = make_target(target.device, target.backend, target.precision, target.threads, target.batch)
    elif backend == "auto":
        targets = make_targets(device, precision, threads, batch)
        with progress() as report:
            choice = fastest_backend(space_config, targets, config, out, seed=seed, report=report)
        print_backends(choice, as_json=as_json)
        target = choice.fastest
    else:
        target = make_target(device, backend, precision, threads, batch)
    with progress() as report:
        table = run_profile(
            space_config,
            target,
            config,
            out,
            seed=seed,
            report=report,
        )
    print_table(table, as_json=as_json, written=out)


def devices(as_json: Json = False) -> None:
    """List what can be measured on here, and why the rest cannot."""
    from nat2deploy.cli.render import print_devices
    from nat2deploy.engines.registry import available_backends
    from nat2deploy.target import fingerprint

    print_devices(available_backends(), fingerprint(), as_json=as_json)


@table_app.command("show")
def table_show(
    path: Annotated[Path, typer.Argument(metavar="TABLE")],
    entries: Annotated[int, typer.Option(min=0, help="Print so many of the slowest blocks.")] = 10,
    as_json: Json = False,
) -> None:
    """Print a latency table: target, certificate, slowest blocks."""
    from nat2deploy.cli.render import print_table
    from nat2deploy.cost.table import load_table

    print_table(load_table(path), as_json=as_json, entries=entries)


def costs(
    arch: Annotated[str, typer.Option(help='Such as {"ks":[..],"e":[..],"d":[..],"r":224,"w":1.0}.')],
    space: Space = "ofa-mbv3",
    table: Annotated[Path | None, typer.Option(help="A latency table, for latency_ms.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Outputs (1000; 10 for nano).")] = None,
    as_json: Json = False,
) -> None:
    """Print an architecture's MACs, parameters and, with a table, its latency.

    ks (kernels) and e (expansions) hold one value a present layer, or one a possible layer.
    """
    from nat2deploy.cost.model import CostModel
    from nat2deploy.cost.table import load_table
    from nat2deploy.search.budget import format_cost
    from nat2deploy.space.parsing import parse_architecture
    from nat2deploy.space.search_space import load_space

    chosen = load_space(space)
    architecture = parse_architecture(chosen, arch)
    measured = None if table is None else load_table(table)
    count = classes if classes is not None else (10 if chosen.name == "nano" else 1000)
    found = CostModel(chosen, count, measured).costs(architecture)
    values: dict[str, float] = {"macs": found.macs, "params": found.params, "size_mb": found.size_mb}
    if found.latency_ms is not None:
        values["latency_ms"] = found.latency_ms
    if as_json:
        typer.echo(json.dumps({"id": architecture.id, **values}))
        return
    typer.echo(f"{architecture.id}  {architecture}")
    for key, value in values.items():
        typer.echo(f"  {key:<11} {format_cost(key, value)}")
