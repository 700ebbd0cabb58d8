"""The front door of exporting: a network of a run becomes a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nat2deploy.cost.model import CostModel
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.data.sets import ImageData
from nat2deploy.deploy.export import compile_engine, export_bundle
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.parity import run_all
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import ExportConfig, Files, SearchConfig
from nat2deploy.run.cost_source import load_tables, table_of
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.networks import open_network
from nat2deploy.search.budget import Budget, budgets_on, parse_budgets
from nat2deploy.target import PRECISIONS, Target, fingerprint
from nat2deploy.training.evaluation import judge
from nat2deploy.training.simulated_precision import CALIBRATION_IMAGES

_TEST_BATCH = 250


def export(run_path: Path, config: ExportConfig, out: Path, report: Report = silent) -> Manifest:
    """Export a network of a run to ``out`` (a folder, or a .zip), with parity and latency evidence.

    Where the search chose precisions, the network is exported in its own.

    For an int8 target activations are calibrated on images of the training split, and the test accuracy is
    that of the int8 engine. Latency is measured here only when the latency table is of this machine.

    Raises:
        UserError: no run or network, no such target of the run, ``out`` holds something else, the engine does
            not run the table's precision or device, or it does not agree with PyTorch.
    """
    search = RunDirectory(run_path).read_config(SearchConfig)
    report("export", 0, 3, "open the network")
    chosen, data = open_network(run_path, config.network)
    architecture = chosen.info.choice
    name, files = table_for(search, config.target)
    held = load_tables(files, {})
    table = table_of(held[""], architecture.precision) if held else None
    target = bundle_target(config, None if table is None else table.target)
    # A table of another engine predicts nothing about this one.
    predicting = None if table is None or table.target != target else table
    plain = replace(architecture, precision=None)
    costs = CostModel(chosen.info.space, data.classes, predicting).costs(plain)
    report("export", 1, 3, "test accuracy")
    preprocessing = Preprocessing(resolution=architecture.resolution, mean=data.mean, std=data.std)
    calibration = None
    if target.precision == "int8":
        calibration = data.train.subset(CALIBRATION_IMAGES, search.settings.seed).images
        top1 = _top1(compile_engine(chosen.network, target, preprocessing, calibration), data, preprocessing)
    else:
        top1 = judge(chosen.network, data, data.test, architecture.resolution).top1
    here = table is None or table.fingerprint.same_machine(fingerprint())
    report("export", 2, 3, "compile, compare and measure" if here else "compile and compare")
    manifest = export_bundle(
        chosen.network,
        out=out,
        target=target,
        preprocessing=preprocessing,
        labels=data.labels,
        network_id=architecture.id,
        architecture=architecture.to_json(),
        space=chosen.info.space.name,
        budgets=_budgets(search, name),
        costs=costs,
        accuracy=(search.data, top1, len(data.test)),
        reference_images=data.validation.subset(min(64, len(data.validation)), search.settings.seed).images,
        calibration_images=calibration,
        seed=search.settings.seed,
        time_limit_s=5.0 if here else None,
    )
    report("export", 3, 3, str(out))
    return manifest


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


def bundle_target(config: ExportConfig, measured: Target | None) -> Target:
    """Return the table's target (the default one without a table), on the bundle's engine.

    Raises:
        UserError: the bundle's engine runs neither the device nor the precision.
    """
    if measured is None:
        return Target(backend=config.engine)
    if measured.kind != "cpu":
        raise UserError(
            f"the run's table is of target {measured}; a bundle for {config.engine} runs on the CPU; "
            "search with a table of one"
        )
    if measured.precision not in PRECISIONS["cpu"][config.engine]:
        have = " and ".join(PRECISIONS["cpu"][config.engine])
        raise UserError(
            f"the run's table is of target {measured}; a bundle for {config.engine} holds {have}, "
            f"not {measured.precision}; search with a table of one of those"
        )
    return measured.model_copy(update={"backend": config.engine})


def _top1(engine: Engine, data: ImageData, preprocessing: Preprocessing) -> float:
    """The engine's share of right first classes on the test split."""
    right = 0
    for start in range(0, len(data.test), _TEST_BATCH):
        here = slice(start, start + _TEST_BATCH)
        inputs = preprocessing.apply(data.test.images[here]).numpy().astype(np.float32, copy=False)
        right += int((run_all(engine, inputs).argmax(axis=1) == data.test.targets[here].numpy()).sum())
    return right / len(data.test)
