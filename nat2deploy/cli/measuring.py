"""profile, profiles, devices, costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nat2deploy.cli.options import (
    PYTHON,
    Calibration,
    EverySize,
    HeldOut,
    Interval,
    Json,
    Python,
    Resolutions,
    Seed,
    Space,
    SshOption,
    Tables,
    Threads,
    TimeLimit,
    ssh_settings,
    tables,
)
from nat2deploy.cli.profile_option import ProfileFile, chosen_profile, remark_on
from nat2deploy.cli.profiling import profile_config, profiled_space
from nat2deploy.cli.progress import progress
from nat2deploy.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(profile)
    app.command()(profiles)
    app.command()(devices)
    app.command()(costs)


def profile(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="The table to write, a .json file.")],
    space: Space = "nano",
    profile_file: ProfileFile = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda:N, or ssh://user@host[:port]: a device with Python, numpy and onnxruntime."
        ),
    ] = "cpu",
    backend: Annotated[
        str,
        typer.Option(
            help="onnxruntime, openvino, torch, tensorrt, tensorrt-rtx, or auto: the fastest on this machine."
        ),
    ] = "onnxruntime",
    precision: Annotated[
        str,
        typer.Option(
            help="Number format of the networks: fp32, int8, fp16 (GPUs), or bf16 (openvino, torch)."
        ),
    ] = "fp32",
    threads: Threads = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    resolution_list: Resolutions = None,
    interval: Interval = 0.01,
    time_limit: TimeLimit = 300.0,
    calibration: Calibration = 24,
    held_out: HeldOut = 50,
    every_size: EverySize = 1,
    seed: Seed = 0,
    python: Python = PYTHON,
    ssh_option: SshOption = None,
    as_json: Json = False,
) -> None:
    """Measure every block of a search space on a machine into a certified latency table.

    An interrupted profile goes on where it was. With --backend auto, a few networks are first measured on
    each installed backend that runs the precision, and the fastest one is profiled. `nat2deploy table kit` is
    for devices without ssh.

    Example: nat2deploy profile --device cpu --threads 1 --space nano --out table.json
    """
    from nat2deploy.cli.render import print_backends
    from nat2deploy.cli.render_table import print_table
    from nat2deploy.run.profile import fastest_backend
    from nat2deploy.run.profile import profile as run_profile
    from nat2deploy.target import make_target, make_targets

    space_config = profiled_space(space, resolution_list)
    ssh = ssh_settings(device, python, ssh_option)
    chosen = None
    if profile_file is not None:
        decided = ("backend", "precision", "threads", "batch")
        chosen = chosen_profile(context, profile_file, *decided, *(("device",) if ssh is None else ()))
    if ssh is not None:
        device = "cpu"
    config = profile_config(
        interval=interval,
        time_limit=time_limit,
        calibration=calibration,
        held_out=held_out,
        every_size=every_size,
        warmup_ms=None if chosen is None else chosen.warmup_ms,
    )
    if chosen is None and backend == "auto":
        if ssh is not None:
            raise UserError("--backend auto is for this machine; an ssh device has onnxruntime only")
        targets = make_targets(device, precision, threads, batch)
        with progress() as report:
            choice = fastest_backend(space_config, targets, config, out, seed=seed, report=report)
        print_backends(choice, as_json=as_json)
        target = choice.fastest
    else:
        if chosen is not None:
            target = chosen.target
            device, backend, precision = target.device, target.backend, target.precision
            threads, batch = target.threads, target.batch
        target = make_target(device, backend, precision, threads, batch, elsewhere=ssh is not None)
        if chosen is not None:
            remark_on(chosen)
    with progress() as report:
        table = run_profile(
            space_config,
            target,
            config,
            out,
            seed=seed,
            ssh=ssh,
            report=report,
            asks_load=backend != "auto",  # the choice asked, and kept the machine busy since
        )
    print_table(table, as_json=as_json, written=out)


def profiles(as_json: Json = False) -> None:
    """List the targets that come with the package, and the tables that were measured on each."""
    from nat2deploy.cli.render import print_profiles
    from nat2deploy.run.profiles import shipped_profiles

    print_profiles(shipped_profiles(), as_json=as_json)


def devices(as_json: Json = False) -> None:
    """List what can be measured on here, and why the rest cannot."""
    from nat2deploy.cli.render import print_devices
    from nat2deploy.engines.status import available_backends
    from nat2deploy.target import fingerprint

    print_devices(available_backends(), fingerprint(), as_json=as_json)


def costs(
    arch: Annotated[str, typer.Option(help='Such as {"ks":[..],"e":[..],"d":[..],"r":224,"w":1.0}.')],
    space: Space = "ofa-mbv3",
    table: Tables = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Outputs (1000; 10 for nano and its variants).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print an architecture's MACs, parameters, size, peak activation memory and, with a table, its latency.

    ks (kernels) and e (expansions) hold one value a present layer, or one a possible layer.
    """
    from nat2deploy.run.cost_source import cost_source
    from nat2deploy.search.budget import format_cost
    from nat2deploy.space.parsing import parse_architecture
    from nat2deploy.space.search_space import load_space

    chosen = load_space(space)
    architecture = parse_architecture(chosen, arch)
    count = classes if classes is not None else (10 if chosen.name.partition("-")[0] == "nano" else 1000)
    values = cost_source(chosen, count, *tables(table)).values(architecture)
    if as_json:
        typer.echo(json.dumps({"id": architecture.id, **values}))
        return
    typer.echo(f"{architecture.id}  {architecture}")
    width = max(map(len, values))
    for key, value in values.items():
        typer.echo(f"  {key:<{width}} {format_cost(key, value)}")
