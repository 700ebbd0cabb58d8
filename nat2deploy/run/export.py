"""The front door of exporting: a network of a run becomes a bundle."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import LatencyTable
from nat2deploy.data.names import shown_name
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.export import check_options, export_bundle
from nat2deploy.deploy.judging import MAX_ACCURACY_DROP, Labelled, Promise
from nat2deploy.deploy.making import EngineOptions
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.engines.registry import absent
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.progress import Report, remarks, silent
from nat2deploy.run.config import ExportConfig, Files, SearchConfig
from nat2deploy.run.cost_source import load_tables, table_of
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.int8_tuning import checkpoint_in, tuned_network
from nat2deploy.run.networks import evaluator_of, open_network
from nat2deploy.run.read_search import read_search
from nat2deploy.run.stages import stages_plan
from nat2deploy.search.budget import Budget, budgets_on, parse_budgets
from nat2deploy.target import PRECISIONS, DeviceKind, Target, fingerprint


def export(run_path: Path, config: ExportConfig, out: Path, report: Report = silent) -> Manifest:
    """Export a network of a run to ``out`` (a folder, or a .zip), with parity and latency evidence.

    Where the search chose precisions, the network is exported in its own, unless another one is asked for.

    For an int8 target activations are calibrated on images of the training split, and the layers that must
    stay in float are searched on validation images, and by latency where that is asked for. Test accuracy is
    the engine's. Latency is measured here only when the latency table is of this machine; ``report`` is told
    why it was not.

    As stages, a network with several exits stops where it is sure enough; thresholds are fitted on validation
    images.

    Raises:
        UserError: no run or network, no such target of the run, ``out`` holds something else, the engine does
            not run the precision or device, or it does not agree with PyTorch.
    """
    search = read_search(RunDirectory(run_path))
    report("export", 0, 2, "open the network")
    chosen, data = open_network(run_path, config.network)
    architecture = chosen.info.choice
    name, files = table_for(search, config.target)
    held = load_tables(files, {})
    table = table_of(held[""], architecture.precision) if held else None
    target = bundle_target(config, None if table is None else table.target)
    # A table of another engine predicts nothing about this one. What one device, or one batch, was searched
    # for says nothing about another.
    comparable = table is None or (table.target.kind, table.target.batch) == (target.kind, target.batch)
    predicting = None if table is None or table.target != target else table
    plain = replace(architecture, precision=None)
    model = CostModel(chosen.info.space, data.classes, predicting)
    costs = model.costs(plain)
    not_measured = "" if table is None else elsewhere(table, target)
    here = not not_measured
    by_search = architecture.precision is not None and config.precision is None
    check_int8_options(config, {target.precision, "int8"} if by_search else {target.precision}, here=here)
    idle = _idle_options(config, {target.precision})
    if idle:
        remarks(report)(
            f"the search chose {target.precision} for network {chosen.front.id}, where {' and '.join(idle)} "
            f"do{'' if len(idle) > 1 else 'es'} nothing; export it with --precision int8 for that"
        )
    check_options(target, _engine_options(config))  # now, not after tuning
    report("export", 1, 2, "compile, compare and measure")
    preprocessing = Preprocessing(resolution=architecture.resolution, mean=data.mean, std=data.std)
    seed = search.settings.seed if config.seed is None else config.seed
    calibration = None
    if target.precision == "int8":
        calibration = data.train.subset(config.calibration_images, seed).images
    network = chosen.network
    if calibration is not None and config.qat_epochs > 0:
        inputs = preprocessing.apply(calibration)
        network = tuned_network(chosen, data, search, config, target, inputs, report)
    # The search judged this network in 8 bits, and predicted its latency with all layers in them.
    promised = config.max_accuracy_drop is None and target.precision == "int8" == architecture.precision
    allowed = config.max_accuracy_drop
    if allowed is None:
        allowed = 1.0 if promised else MAX_ACCURACY_DROP
    promise = None
    if promised:
        judge = evaluator_of(search, data, architecture)
        simulated = judge.first_classes(chosen.network, architecture, judge.validation).cpu().numpy()
        shown = Labelled(shown_name(search.data), judge.validation.images, judge.validation.targets)
        promise = Promise(simulated, shown)
    stages = None
    if config.stages:
        stages = stages_plan(config, chosen, network, model)
    manifest = export_bundle(
        network,
        out=out,
        target=target,
        preprocessing=preprocessing,
        labels=data.labels,
        network_id=architecture.id,
        target_name=name or None,
        untuned=None if network is chosen.network else chosen.network,
        origin=None if chosen.front.id == architecture.id else chosen.front.id,
        architecture=architecture.to_json(),
        space=chosen.info.space.name,
        budgets=[b for b in _budgets(search, name) if comparable or "latency" not in b.metric],
        costs=costs,
        test=Labelled(shown_name(search.data), data.test.images, data.test.targets),
        validation=None
        if promised and stages is None
        else Labelled(shown_name(search.data), data.validation.images, data.validation.targets),
        promise=promise,
        reference_images=data.validation.subset(min(64, len(data.validation)), search.settings.seed).images,
        calibration_images=calibration,
        options=replace(
            _engine_options(config),
            method=config.calibration_method,
            max_accuracy_drop=allowed,
            int8_layers=config.int8_layers if target.precision == "int8" else "all",
            qat_epochs=config.qat_epochs,
            qat_learning_rate=config.qat_learning_rate if config.qat_epochs else None,
        ),
        stages=stages,
        seed=search.settings.seed,
        time_limit_s=5.0 if here else None,
        progress=lambda text: report("export", 1, 2, text),
    )
    if network is not chosen.network:
        checkpoint_in(chosen.folder).unlink(missing_ok=True)
    report("export", 2, 2, str(out))
    not_measured = not_measured or absent(target)
    if not_measured:
        remarks(report)(f"latency was not measured: {not_measured}")
    return manifest


def elsewhere(table: LatencyTable, target: Target) -> str:
    """Say why a bundle for ``target`` is not measured on this machine; empty where the table knows no why."""
    # On a GPU what was measured says nothing about whether the engine's GPU is here.
    there, here = table.fingerprint, fingerprint()
    if target.kind == "cuda" or there.model_copy(update={"gpu": None}).same_machine(here):
        return ""
    theirs, ours = there.told_apart(here)
    return (
        f"the run's table is of another machine ({theirs}) than this one ({ours}); export there, or measure "
        "the bundle there with `nat2deploy verify`"
    )


def table_for(search: SearchConfig, target: str | None) -> tuple[str, Files | None]:
    """Return the name (empty without) and the table's files of the target that a run's bundle is for.

    Raises:
        UserError: a target that the run has not, or none said where it has several.
    """
    names = tuple(search.tables)
    if target is None and len(names) <= 1:
        target = names[0] if names else ""
    if target == "":
        return "", search.table
    if target not in search.tables:
        have = f"the run's are {', '.join(names)}" if names else "the run's has no name; leave it out"
        what = "say which target the bundle is for" if target is None else f"there is no target '{target}'"
        raise UserError(f"--target: {what}; {have}")
    return target, search.tables[target]


def _budgets(search: SearchConfig, name: str) -> list[Budget]:
    """The run's budgets that hold on a target, with metrics that no longer name it."""
    found = []
    for budget in budgets_on(parse_budgets(list(search.budgets)), tuple(search.tables)):
        metric, _, target = budget.metric.partition("@")
        if target in ("", name):
            found.append(replace(budget, metric=metric))
    return found


_FOR_INT8 = (
    "int8_layers",
    "qat_epochs",
    "qat_learning_rate",
    "calibration_method",
    "calibration_images",
    "seed",
)


def _idle_options(config: ExportConfig, precisions: Collection[str]) -> list[str]:
    """Which options that are given are for 8 bits, where a bundle in these precisions has none."""
    names = () if "int8" in precisions else _FOR_INT8
    if set(precisions) <= {"fp32"}:
        names = (*names, "max_accuracy_drop")
    return [name for name in names if getattr(config, name) != type(config).model_fields[name].default]


def check_int8_options(config: ExportConfig, precisions: Collection[str], *, here: bool) -> None:
    """Check that what is asked for in 8 bits is not asked for in vain.

    Args:
        config: of the export.
        precisions: those that the bundle may be in.
        here: whether latency is measured on this machine.

    Raises:
        UserError: an option for 8 bits where nothing gets any, or only faster layers shall get them and none
            can be measured.
    """
    idle = _idle_options(config, precisions)
    if idle:
        raise UserError(
            f"--{idle[0].replace('_', '-')}: the bundle is in {' or '.join(sorted(precisions))}; "
            "add --precision int8"
        )
    if config.qat_epochs == 0 and "qat_learning_rate" in _idle_options(config, ()):
        raise UserError("--qat-learning-rate: nothing is tuned for 8 bits; add --qat-epochs")
    if config.int8_layers == "faster" and not here:
        raise UserError(
            "--int8-layers faster: the table is of another machine, and latency is measured on this one; "
            "export there, or leave it out"
        )


def _engine_options(config: ExportConfig) -> EngineOptions:
    """What is asked for of the engine whatever its precision is."""
    return EngineOptions(sm=config.sm, batches=config.batches, save_optimised=config.save_optimised)


def check_target(config: ExportConfig, measured: Target) -> Target:
    """Return what a bundle is for, as ``bundle_target``, once it can be made as asked.

    Raises:
        UserError: the engine does not run the precision on that device, or an option is for another engine.
    """
    target = bundle_target(config, measured)
    check_options(target, _engine_options(config))
    return target


def bundle_target(config: ExportConfig, measured: Target | None) -> Target:
    """Return what a bundle is for: the table's target (the default one without a table), on its engine.

    Raises:
        UserError: the engine does not run the precision on that device.
    """
    gpu = config.engine in ("tensorrt", "tensorrt-rtx")
    device = config.device or ("cuda:0" if gpu else "cpu")
    if (
        measured is not None
        and config.device is None
        and measured.kind == "cuda"
        and config.engine != "openvino"
    ):
        device = measured.device
    kind: DeviceKind = "cpu" if device == "cpu" else "cuda"
    precision = config.precision or ("fp32" if measured is None else measured.precision)
    runs = PRECISIONS[kind].get(config.engine)
    if runs is None:
        raise UserError(f"--engine {config.engine} does not run on {device}; choose another --device")
    if precision not in runs:
        on = "" if kind == "cpu" else f" on {device}"
        where = "" if config.precision else f"the run's table is of target {measured}; "
        raise UserError(
            f"{where}a bundle for {config.engine}{on} holds {' and '.join(runs)}, not {precision}; "
            "choose one with --precision"
        )
    sizes = config.batches
    batch = sizes[1] if sizes else 1 if measured is None else measured.batch
    threads = 1 if measured is None or kind == "cuda" else measured.threads
    fields = {"device": device, "backend": config.engine, "precision": precision}
    options = {name: f"--{name}" for name in ("batch", "device", "precision")}
    return parse(Target, {**fields, "threads": threads, "batch": batch}, "export", options)
