"""export, verify, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nat2deploy.cli.options import DATA, PYTHON, Json, Network, Python, Run, Seed, SshOption, ssh_settings
from nat2deploy.cli.progress import progress
from nat2deploy.errors import UserError
from nat2deploy.seed import LARGEST_SEED

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
        str | None,
        typer.Option(
            help="int8: points of top-1, for which layers stay in float; 0.5% unless the search chose int8."
        ),
    ] = None,
    int8_layers: Annotated[
        str, typer.Option(help="int8: all, or faster: those that are faster in 8 bits, measured here.")
    ] = "all",
    qat_epochs: Annotated[
        float, typer.Option(min=0, help="int8: epochs of quantisation-aware fine-tuning first.")
    ] = 0.0,
    qat_learning_rate: Annotated[
        float, typer.Option(min=1e-8, help="int8: of that fine-tuning, at its beginning.")
    ] = 0.002,
    stages: Annotated[
        bool,
        typer.Option(
            "--stages", help="A network with several exits: as stages that stop when they are sure."
        ),
    ] = False,
    expected_latency: Annotated[
        str | None, typer.Option(help="Of stages: expected latency to keep, such as 0.15ms.")
    ] = None,
    stage_accuracy: Annotated[
        str | None, typer.Option(help="Of stages: least top-1 on validation, such as 90%.")
    ] = None,
    stage_accuracy_drop: Annotated[
        str | None, typer.Option(help="Of stages: points of top-1 below the ensemble's; 0.5%.")
    ] = None,
    confidence: Annotated[
        str | None, typer.Option(help="Of stages: max-softmax, margin or entropy; the best when not given.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Draws the calibration images; the run's when not given."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Which of the run's targets it is for, where there are several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a network of a run into a bundle for the device, checked against PyTorch.

    With --stages, thresholds of the exits are fitted on validation images: for an expected latency, or for an
    accuracy.
    """
    from nat2deploy.cli.options import option_names, percentage, whole_numbers
    from nat2deploy.cli.render import print_manifest
    from nat2deploy.files import parse
    from nat2deploy.run.config import ExportConfig
    from nat2deploy.run.export import export as run_export

    def share(option: str, text: str | None) -> float | None:
        return None if text is None else percentage(option, text)

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
        "int8_layers": int8_layers,
        "qat_epochs": qat_epochs,
        "qat_learning_rate": qat_learning_rate,
        "max_accuracy_drop": share("--max-accuracy-drop", max_accuracy_drop),
        "stages": stages,
        "expected_latency": expected_latency,
        "stage_accuracy": share("--stage-accuracy", stage_accuracy),
        "stage_accuracy_drop": share("--stage-accuracy-drop", stage_accuracy_drop),
        "confidence": confidence,
        "seed": seed,
        "target": target,
    }
    config = parse(ExportConfig, fields, "export", option_names(fields))
    with progress() as report:
        manifest = run_export(run, config, out, report)
    print_manifest(manifest, out, as_json=as_json)


def verify(
    bundle: Bundle,
    device: Annotated[
        str,
        typer.Option(help="cpu, or ssh://user@host[:port]: with Python, numpy and the bundle's engine."),
    ] = "cpu",
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds of measuring.")] = 5.0,
    seed: Seed = 0,
    python: Python = PYTHON,
    ssh_option: SshOption = None,
    as_json: Json = False,
) -> None:
    """Check a bundle: hashes, engine against PyTorch on real images, and the budgets.

    With --device ssh://... it is copied there, checked and measured there, and the bundle's evidence.json
    then holds what was found. Of engines other than ONNX Runtime on the CPU, latency is only told.

    Exit code 1 when a check fails that is not bad input, such as a latency over the budget.
    """
    from nat2deploy.cli.render import print_verification
    from nat2deploy.deploy.verify import verify_bundle

    ssh = ssh_settings(device, python, ssh_option)
    if ssh is None and device != "cpu":
        raise UserError(f"--device {device}: a bundle is verified on cpu, or on ssh://user@host")
    if ssh is None:
        verification = verify_bundle(bundle, seed=seed, time_limit_s=time_limit)
    else:
        from nat2deploy.remote.bundle_verification import verify_on_device

        with progress() as report:
            verification = verify_on_device(
                bundle,
                ssh,
                seed=seed,
                time_limit_s=time_limit,
                progress=lambda share, text: report("verify", share, 1.0, text),
                say=lambda text: report("connection", 0.0, 1.0, text),
            )
    print_verification(verification, as_json=as_json)
    if not verification.ok:
        raise typer.Exit(1)


def bench(
    networks: Annotated[
        list[str],
        typer.Argument(metavar="NETWORK", help="Bundles, .onnx files, torchvision:NAME@PIXELS."),
    ],
    data: Annotated[str | None, DATA] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Instead of each bundle's own.")] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds of measuring.")] = 30.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare networks in one interleaved run: latency, throughput, memory, accuracy, each as measured.

    With --data, bundles of its classes are judged on its test split, on images as large as at their export,
    else their manifests' accuracy is shown. torchvision's networks have random weights.

    Example: nat2deploy bench bundle other.onnx torchvision:mobilenet_v3_small@64
    """
    from nat2deploy.cli.render import print_bench
    from nat2deploy.deploy.bench import bench as run_bench

    with progress() as report:
        rows = run_bench(
            networks,
            seed=seed,
            data=data,
            precision=0.005,
            time_limit_s=time_limit,
            threads=threads,
            progress=lambda share, text: report("bench", share, 1.0, text),
        )
    print_bench(rows, as_json=as_json)
