"""train, search, supernet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nat2deploy.cli.commands import Commands
from nat2deploy.cli.options import (
    DATA,
    SPACE_OPTIONS,
    Data,
    Json,
    Resolutions,
    Seed,
    Space,
    Tables,
    Workers,
    given_options,
    only_with,
    option_names,
    resolutions,
    tables,
)
from nat2deploy.cli.progress import progress
from nat2deploy.launch import launched
from nat2deploy.seed import LARGEST_SEED

if TYPE_CHECKING:
    from nat2deploy.run.config import SearchConfig

_SUPERNET = "A super-network's file, or a shipped one's name: nano-ee-d-fashion-mnist."


supernet_app = Commands(no_args_is_help=True, help="Look at super-networks, or import one.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command()(search)
    app.add_typer(supernet_app, name="supernet")


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="The super-network to write, a .safetensors file.")],
    data: Annotated[str | None, DATA] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="A TOML file of `nat2deploy run`: its data, seed, space and train; no options beside it.",
        ),
    ] = None,
    space: Space = "nano",
    resolution_list: Resolutions = None,
    width: Annotated[
        float | None, typer.Option(help="Width multiplier; the space's first by default.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Start from this one's weights: a file, or a shipped one's name.")
    ] = None,
    schedule: Annotated[
        str,
        typer.Option(help="scaled, or eps-paper: OFAv2's published phases, with their epochs and rates."),
    ] = "scaled",
    epochs: Annotated[float, typer.Option(min=0.01, help="In all phases together.")] = 12.0,
    learning_rate: Annotated[
        float, typer.Option(min=1e-6, help="Of the first phase; the others have a fraction of it.")
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 128,
    teacher: Annotated[
        str,
        typer.Option(
            help="first: the full network as the first phase left it; extracted: anew before each phase."
        ),
    ] = "first",
    sandwich: Annotated[
        bool, typer.Option(help="Train the largest and the smallest sub-network at each step, too.")
    ] = False,
    label_smoothing: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of a label that all classes get.")
    ] = 0.1,
    ema: Annotated[
        float | None, typer.Option(help="Decay of an average of the weights, such as 0.999.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of a step's gradient.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    mixed_precision: Annotated[bool, typer.Option(help="bfloat16 on a GPU.")] = False,
    curve: Annotated[
        Path | None,
        typer.Option(help="A folder for the learning curve: JSON lines, TensorBoard's format, a picture."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a super-network by progressive shrinking; the same command goes on with a killed training.

    Example: nat2deploy train --space nano-ee-d --data digits --epochs 60 --out w.safetensors

    Several processes share each batch: torchrun --nproc-per-node 4 -m nat2deploy train --device cuda ...
    """
    from nat2deploy.cli.render import print_supernet
    from nat2deploy.files import parse
    from nat2deploy.run.config import SpaceConfig, TrainConfig, load_pipeline

    given = {
        "start": start,
        "schedule": schedule,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "width": width,
        "teacher": teacher,
        "sandwich": sandwich,
        "label_smoothing": label_smoothing,
        "ema": ema,
        "clip": clip,
        "device": device,
        "mixed_precision": mixed_precision,
        "curve": None if curve is None else str(curve),
    }
    if config_file is not None:
        only_with(context, "--config", "out")
        whole = load_pipeline(config_file)
        where, data, config, seed = whole.space, whole.data, whole.train, whole.seed
    elif data is not None:
        own = given_options(context, ("epochs", "learning_rate"))
        if schedule == "eps-paper" and own:
            raise typer.BadParameter(
                f"--schedule eps-paper has its own epochs and rates; leave out {' and '.join(own)}"
            )
        place = {"name": space, "resolutions": resolutions(resolution_list)}
        where = parse(SpaceConfig, place, "space", SPACE_OPTIONS)
        config = parse(TrainConfig, given, "training", option_names(given))
    else:
        raise typer.BadParameter("give --data, or a --config that names it")
    from nat2deploy.run.train import train as run_train

    with progress() as report:
        info = run_train(where, data, config, out, seed=seed, report=report)
    if launched().is_first:
        print_supernet(info, out, as_json=as_json)


@supernet_app.command("info")
def supernet_show(
    supernet: Annotated[str, typer.Argument(metavar="SUPERNET", help=_SUPERNET)],
    as_json: Json = False,
) -> None:
    """Say what a super-network file holds."""
    from nat2deploy.cli.render import print_supernet
    from nat2deploy.supernet.checkpoint import supernet_info
    from nat2deploy.supernet.shipped import find_supernet

    path = find_supernet(supernet)
    print_supernet(supernet_info(path), path, as_json=as_json)


@supernet_app.command("evaluate")
def supernet_evaluate(
    supernet: Annotated[str, typer.Argument(metavar="SUPERNET", help=_SUPERNET)],
    data: Data,
    networks: Annotated[int, typer.Option(min=1, help="Random sub-networks.")] = 50,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    card: Annotated[
        Path | None, typer.Option(help="Write the super-network's model card here, a .md file.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Judge the smallest, the largest and random sub-networks with inherited weights."""
    from nat2deploy.cli.render import print_evaluated
    from nat2deploy.files import check_writable
    from nat2deploy.run.evaluate import evaluate
    from nat2deploy.run.model_card import write_model_card

    if card is not None:
        check_writable(card)  # now, not after all are judged
    with progress() as report:
        found = evaluate(supernet, data, networks=networks, split=split, seed=seed, report=report)
    if card is not None:
        write_model_card(card, supernet, found, data, split)
    print_evaluated(found, as_json=as_json)


def search(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="The run's folder; an unfinished run goes on.")],
    data: Annotated[str | None, DATA] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", help="The config.toml of an earlier search, to repeat it; no options beside it."
        ),
    ] = None,
    supernet: Annotated[
        list[str] | None,
        typer.Option("--supernet", help=f"{_SUPERNET} Given once a width, they are searched side by side."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Start from an earlier search's archive, and its weights unless --supernet is given.",
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Refuse a super-network of another space.")
    ] = None,
    resolution_list: Resolutions = None,
    table: Tables = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            help="latency<=5ms, latency.p99<=8ms, energy<=5mJ, macs<=200M, params<=3M, size<=4MB, "
            "memory<=2MB or top1>=90%; latency@NAME<=5ms with tables of several targets; repeatable.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="ours; fixed for weights that stay as they are; nat or nat2 for the authors' own settings. "
            "Other settings go before it."
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Of choosing candidates, judging and adapting. (4)")
    ] = None,
    archive_size: Annotated[int | None, typer.Option(min=4, help="Architectures to keep. (60)")] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1, help="Evaluations a round; as many as take the work of its adaptation when not given."
        ),
    ] = None,
    adapt_epochs: Annotated[
        float | None, typer.Option(min=0, help="Adaptation a round; 0 leaves the weights as they are. (1)")
    ] = None,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(
            min=0, help="Training on a data set that is new to the weights, before the first round. (3)"
        ),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="A TOML file of search settings; options go before it.")
    ] = None,
    allow_uncertified: Annotated[bool, typer.Option(help="Accept a table without a certificate.")] = False,
    measure: Annotated[bool, typer.Option(help="Measure the front on this machine.")] = True,
    workers: Workers = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Drives everything random; 0, or that of --settings."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search a super-network's sub-networks for the best within budgets (NAT2).

    Prints the front with predicted and then measured latency. The same command goes on with a run that
    was stopped or killed. A new search with other budgets, tables or data starts from an earlier one by
    --from; accuracies that still hold are not measured again. Values in parentheses are the defaults of the
    preset "ours".

    Example: nat2deploy search --supernet w.safetensors --data digits --table t.json --budget 'latency<=1ms'
    --out run
    """
    from nat2deploy.files import parse, read_toml
    from nat2deploy.run.config import SearchConfig, SearchedSpace
    from nat2deploy.run.directory import RunDirectory
    from nat2deploy.search.settings import SearchSettings

    if config_file is not None:
        only_with(context, "--config", "out", "workers", "measure")
        fields = {**read_toml(config_file, "config"), "workers": workers or "auto"}
        if given_options(context, ("measure",)):  # of this call alone: no run stores it
            fields["measure"] = measure
        _search(parse(SearchConfig, fields, f"config {config_file}", exact=True), out, as_json=as_json)
        return
    if data is None:
        raise typer.BadParameter("give --data, or --config with an earlier search's config.toml")
    if not supernet:
        if start is None:
            raise typer.BadParameter("give --supernet, or --from with an earlier run")
        supernet = [str(RunDirectory(start).supernet_path)]
    chosen: dict[str, object] = {} if settings is None else read_toml(settings, "search settings")
    given = {
        "preset": preset,
        "rounds": rounds,
        "archive_size": archive_size,
        "candidates": candidates,
        "adapt_epochs": adapt_epochs,
        "warmup_epochs": warmup_epochs,
        "seed": seed,
    }
    given = {key: value for key, value in given.items() if value is not None}
    chosen.update(given)
    what = "search settings" if settings is None else f"search settings {settings}"
    unnamed, named = tables(table)
    fields = {
        "space": parse(
            SearchedSpace,
            {"name": space, "resolutions": resolutions(resolution_list)},
            "space",
            SPACE_OPTIONS,
        ),
        "supernet": supernet[0] if len(supernet) == 1 else tuple(supernet),
        "start": None if start is None else str(start),
        "data": data,
        "table": unnamed,
        "tables": named,
        "budgets": tuple(budget or ()),
        "allow_uncertified": allow_uncertified,
        "measure": measure,
        "settings": parse(SearchSettings, chosen, what, option_names(given), exact=True),
        "workers": workers or "auto",
    }
    names = option_names(fields, start="--from", tables="--table", budgets="--budget")
    _search(parse(SearchConfig, fields, "search", names), out, as_json=as_json)


def _search(config: SearchConfig, out: Path, *, as_json: bool) -> None:
    from nat2deploy.cli.render import print_front
    from nat2deploy.run.search import search as run_search

    with progress() as report:
        front = run_search(config, out, report)
    print_front(front, out, as_json=as_json)


@supernet_app.command("import")
def import_weights(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A released Once-For-All MobileNetV3, a .pth file.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The super-network to write, a .safetensors file.")],
    space: Space = "ofa-mbv3",
    classes: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Another number than the file's brings a new classifier."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a super-network of a released Once-For-All checkpoint; its width is found from its shapes.

    Example: nat2deploy supernet import ofa_mbv3_d234_e346_k357_w1.0 --space ofa-mbv3 --out w.safetensors
    """
    from nat2deploy.cli.render import print_supernet
    from nat2deploy.run.import_weights import import_weights as run_import

    info = run_import(checkpoint, space, out, classes=classes, seed=seed)
    print_supernet(info, out, as_json=as_json)
