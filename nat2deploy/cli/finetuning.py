"""finetune."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nat2deploy.cli.options import Json, Run, Seed, option_names
from nat2deploy.cli.progress import progress


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(finetune)


def finetune(
    run: Run,
    network: Annotated[
        str, typer.Option("--network", help="A network's id, several with commas between, best, or all.")
    ] = "best",
    preset: Annotated[str, typer.Option(help="ours, or nat2: the paper's own post-processing.")] = "ours",
    method: Annotated[
        str | None, typer.Option(help="plain, or aep: earlier exits are trained along, summed and pruned.")
    ] = None,
    phases: Annotated[
        int | None,
        typer.Option(help="2: find the best number of epochs, then train on validation images too. (1)"),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.01, help="Of two phases the most that the first may take. (10)")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Epochs without gain that end the first of two phases. (30)")
    ] = None,
    validate_each_epoch: Annotated[
        bool | None,
        typer.Option(
            "--validate-each-epoch/--no-validate-each-epoch",
            help="Of one phase: keep each epoch's validation accuracy and loss, for the report. (yes)",
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-8, help="The cosine's first. (0.01)")] = None,
    final_rate: Annotated[float | None, typer.Option(min=0, help="The cosine's last. (0)")] = None,
    warmup_epochs: Annotated[
        float | None, typer.Option(min=0, help="Of a rising rate. (1, or a tenth of the epochs if less)")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, help="Of the optimiser. (0.0005)")] = None,
    clip: Annotated[
        float | None, typer.Option(min=0, help="Largest norm of a step's gradient; 0: no limit. (5)")
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share that goes to all classes alike. (0.1)")
    ] = None,
    optimiser: Annotated[
        str | None, typer.Option(help="sgd, adamw, or by-exits: AdamW with early exits. (sgd)")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step. (128)")] = None,
    distil: Annotated[
        bool | None, typer.Option("--distil/--no-distil", help="Follow the largest sub-network too. (yes)")
    ] = None,
    exit_weights: Annotated[
        str | None, typer.Option(help="Of aep: unif, asc, desc, mix or learned. (unif)")
    ] = None,
    prune: Annotated[
        list[str] | None,
        typer.Option(
            help="Of aep: accuracy, none, or a cost such as latency; several costs by repeating. (accuracy)"
        ),
    ] = None,
    prune_tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that a cheaper set of exits may lose, of 1. (0.002)"),
    ] = None,
    measure: Annotated[
        bool | None,
        typer.Option("--measure/--no-measure", help="Of aep: measure exits where a latency decides. (yes)"),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Networks at the same time. (1)")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu or cuda:N; several by repeating. (cpu)")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fine-tune networks of a run's front; validation accuracy before and after, test accuracy once.

    Values in parentheses are the defaults of the preset "ours".
    """
    from nat2deploy.cli.render_finetuned import print_finetuned
    from nat2deploy.files import parse
    from nat2deploy.run.finetune import finetune as run_finetune
    from nat2deploy.run.finetune_config import FinetuneConfig

    given: dict[str, Any] = {
        "method": method,
        "phases": phases,
        "epochs": epochs,
        "patience": patience,
        "validate_each_epoch": validate_each_epoch,
        "learning_rate": learning_rate,
        "final_rate": final_rate,
        "warmup_epochs": warmup_epochs,
        "weight_decay": weight_decay,
        "clip": clip,
        "label_smoothing": label_smoothing,
        "optimiser": optimiser,
        "batch_size": batch_size,
        "distil": distil,
        "exit_weights": exit_weights,
        "prune": prune,
        "prune_tolerance": prune_tolerance,
        "measure": measure,
        "workers": workers,
        "devices": device,
    }
    fields = {key: value for key, value in given.items() if value is not None and value != []}
    fields |= {"preset": preset, "network": network, "seed": seed}
    names = option_names((*fields, *given), devices="--device")
    config = parse(FinetuneConfig, fields, "fine-tuning", names)
    with progress() as report:
        done = run_finetune(run, config, report)
    print_finetuned(done, as_json=as_json)
