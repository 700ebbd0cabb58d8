"""export, verify, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nat2deploy.cli.options import Json, Network, Run, Seed
from nat2deploy.cli.progress import progress

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a .zip.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(export)
    app.command()(verify)
    app.command()(bench)


def export(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="The bundle: a folder, or a .zip.")],
    network: Network = "best",
    engine: Annotated[
        str, typer.Option(help="onnxruntime, openvino, tensorrt or tensorrt-rtx.")
    ] = "onnxruntime",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8, instead of the run's table's.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cuda for ONNX Runtime on a GPU; TensorRT's engines are for GPUs anyway."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Images at a time: 8; for TensorRT 1:8 or 1:4:8, fastest at 4.")
    ] = None,
    sm: Annotated[
        str | None,
        typer.Option(help="Compute capabilities to compile ahead for, such as 86,89,120 (tensorrt-rtx)."),
    ] = None,
    save_optimised: Annotated[
        bool,
        typer.Option("--save-optimised", help="Add ONNX Runtime's graph as optimised for this machine."),
    ] = False,
    calibration_method: Annotated[
        str, typer.Option(help="int8: min-max, entropy or percentile.")
    ] = "min-max",
    calibration_images: Annotated[int, typer.Option(min=1, help="int8: of the training split.")] = 256,
    max_accuracy_drop: Annotated[
        str, typer.Option(help="int8: points of top-1; layers stay in float where they must.")
    ] = "0.5%",
    qat_epochs: Annotated[
        float, typer.Option(min=0, help="int8: epochs of quantisation-aware fine-tuning first.")
    ] = 0.0,
    qat_learning_rate: Annotated[float, typer.Option(min=1e-8)] = 0.002,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws the calibration images; the run's when not given.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Which of the run's targets it is for, where there are several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a network of a run into a bundle for the device, checked against PyTorch."""
    from nat2deploy.cli.options import percentage, whole_numbers
    from nat2deploy.cli.render import print_manifest
    from nat2deploy.files import parse
    from nat2deploy.run.config import ExportConfig
    from nat2deploy.run.export import export as run_export

    fields = {
        "network": network,
        "engine": engine,
        "precision": precision,
        "device": device,
        "batch": batch,
        "sm": whole_numbers("--sm", sm) or (),
        "save_optimised": save_optimised,
        "calibration_method": calibration_method,
        "calibration_images": calibration_images,
        "qat_epochs": qat_epochs,
        "qat_learning_rate": qat_learning_rate,
        "max_accuracy_drop": percentage("--max-accuracy-drop", max_accuracy_drop),
        "seed": seed,
        "target": target,
    }
    config = parse(ExportConfig, fields, "export")
    with progress() as report:
        manifest = run_export(run, config, out, report)
    print_manifest(manifest, out, as_json=as_json)


def verify(bundle: Bundle, seed: Seed = 0, as_json: Json = False) -> None:
    """Check a bundle here: hashes, engine against PyTorch on real images, latency against the budget.

    Exit code 1 when a check fails that is not bad input, such as a latency over the budget.
    """
    from nat2deploy.cli.render import print_verification
    from nat2deploy.deploy.verify import verify_bundle

    verification = verify_bundle(bundle, seed=seed)
    print_verification(verification, as_json=as_json)
    if not verification.ok:
        raise typer.Exit(1)


def bench(
    paths: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles or .onnx files.")],
    threads: Annotated[int | None, typer.Option(min=1, help="Instead of each bundle's own.")] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds.")] = 30.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure bundles and ONNX files side by side in one run."""
    from nat2deploy.cli.render import print_bench
    from nat2deploy.deploy.bench import bench as run_bench

    with progress() as report:
        rows = run_bench(
            paths,
            seed=seed,
            precision=0.005,
            time_limit_s=time_limit,
            threads=threads,
            progress=lambda share, text: report("bench", share, 1.0, text),
        )
    print_bench(rows, as_json=as_json)
