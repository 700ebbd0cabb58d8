"""The whole way in one call: profile, train, search, fine-tune, export, verify."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nat2deploy.cost.table import LatencyTable
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.verify import Verification, verify_bundle
from nat2deploy.errors import UserError
from nat2deploy.files import read_json, write_json
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import PipelineConfig, SearchConfig, SearchedSpace, load_pipeline
from nat2deploy.run.cost_source import check_tables, load_tables
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import bundle_target, export
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_report import FinetuneReport
from nat2deploy.run.front import Front
from nat2deploy.run.profile import profile_once
from nat2deploy.run.search import search
from nat2deploy.run.search_inputs import supernet_and_space
from nat2deploy.run.train import train
from nat2deploy.search.budget import budgets_on, parse_budgets
from nat2deploy.space.search_space import load_space


@contextmanager
def _timed(out: Path, stage: str) -> Iterator[None]:
    """Add the stage's seconds to ``timings.json``, also those of a stage that is interrupted."""
    path = out / "timings.json"
    began = time.monotonic()
    try:
        yield
    finally:
        timings = read_json(path, "timings") if path.exists() else {}
        timings[stage] = round(timings.get(stage, 0.0) + time.monotonic() - began, 3)
        write_json(path, timings)


@dataclass(frozen=True)
class Outcome:
    """What the whole way made."""

    out: Path
    table: LatencyTable
    front: Front
    finetuned: list[FinetuneReport]
    manifest: Manifest
    verification: Verification
    bundle: Path


def quickstart_config() -> PipelineConfig:
    """The embedded default: scikit-learn's digits on this machine's CPU."""
    with resources.as_file(resources.files("nat2deploy.run") / "quickstart.toml") as path:
        return load_pipeline(path)


def run_pipeline(config: PipelineConfig, out: Path, report: Report = silent) -> Outcome:
    """Do every stage in the folder ``out``; stages that are done are not done again.

    The folder holds ``config.toml``, ``table.json``, ``supernet.safetensors``, the run in ``search/``,
    the bundle in ``bundle/`` and each stage's seconds in ``timings.json``.
    A killed pipeline goes on where it was.

    Raises:
        UserError: an input that cannot be used, or no network keeps the budgets.
    """
    budgets_on(parse_budgets(list(config.budgets)), tuple(config.profile.tables))
    bundle_target(config.export, config.target)  # now, not after searching
    if config.train.supernet is not None:
        supernet_and_space(config.train.supernet, _searched(config))  # now, not after profiling
    run = RunDirectory(out)
    run.begin(config)
    with run.locked():
        table_path = out / "table.json"
        supernet = config.train.supernet or str(out / "supernet.safetensors")
        with _timed(out, "profile"):
            table = _table(config, table_path, report)
        bundle_target(config.export, table.target)  # that of a table by name may be another than [target]
        with _timed(out, "train"):
            if config.train.supernet is None:
                train(
                    config.space, config.data, config.train, Path(supernet), seed=config.seed, report=report
                )
        with _timed(out, "search"):
            front = search(_search_config(config, supernet, table_path), out / "search", report)
        if front.best is None:
            raise UserError(
                front.note or "no network of the front keeps its budgets when measured; raise one"
            )
        with _timed(out, "finetune"):
            tuning = config.finetune.model_copy(update={"seed": config.seed})
            finetuned = finetune(out / "search", tuning, report)
        bundle = out / "bundle"
        with _timed(out, "export"):
            manifest = export(out / "search", config.export, bundle, report)
            report("verify", 0, 1)
            verification = verify_bundle(bundle, seed=config.seed)
            report("verify", 1, 1)
        return Outcome(out, table, front, finetuned, manifest, verification, bundle)


def _table(config: PipelineConfig, path: Path, report: Report) -> LatencyTable:
    """The latency table that the bundle is for: made here, or read."""
    tables = config.profile.tables
    if tables:
        held = load_tables(None, tables)
        space = load_space(config.space.name).restrict(resolutions=config.space.resolutions)
        check_tables(held, space, allow_uncertified=config.allow_uncertified)
        return held[config.export.target or next(iter(tables))]
    return profile_once(config.space, config.target, config.profile, path, seed=config.seed, report=report)


def _search_config(config: PipelineConfig, supernet: str, table: Path) -> SearchConfig:
    single = None if config.profile.tables else config.profile.table or str(table)
    return SearchConfig(
        space=_searched(config),
        supernet=supernet,
        data=config.data,
        table=single,
        tables=config.profile.tables,
        budgets=config.budgets,
        allow_uncertified=config.allow_uncertified,
        settings=config.search.model_copy(update={"seed": config.seed}),
    )


def _searched(config: PipelineConfig) -> SearchedSpace:
    return SearchedSpace(name=config.space.name, resolutions=config.space.resolutions)
