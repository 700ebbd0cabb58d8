"""The whole way in one call: profile, train, search, fine-tune, export, verify."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

from pydantic import RootModel

from nat2deploy.cost.table import LatencyTable
from nat2deploy.data.load import load_data
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.verify import Verification
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, write_json
from nat2deploy.progress import Report, silent
from nat2deploy.report.write import write_report
from nat2deploy.run.config import (
    PipelineConfig,
    SearchConfig,
    SearchedSpace,
    SuperNetworkFiles,
    TrainConfig,
    as_tuple,
    load_pipeline,
)
from nat2deploy.run.cost_source import check_tables, load_tables, table_of
from nat2deploy.run.deploy_front import LeftOut, deploy_front
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.exit_costs import check_before_search
from nat2deploy.run.export import check_int8_options, check_target, elsewhere
from nat2deploy.run.finetune import check_devices
from nat2deploy.run.finetune_report import FinetuneReport
from nat2deploy.run.front import Front, load_front
from nat2deploy.run.pipeline_words import told_as_keys
from nat2deploy.run.profile import profile_once
from nat2deploy.run.search import search
from nat2deploy.run.search_inputs import searched_space
from nat2deploy.run.stages import check_stages
from nat2deploy.run.train import train
from nat2deploy.run.within_budget import TooSlow
from nat2deploy.search.budget import budgets_on, parse_budgets
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.supernet.checkpoint import supernet_info
from nat2deploy.supernet.shipped import find_supernet

# What comes after the search is done again where it was done in another way.
_CHANGEABLE = ("finetune", "export")


class _Timings(RootModel[dict[str, float]]):
    """Seconds by stage."""


@contextmanager
def _stage(out: Path, stage: str) -> Iterator[None]:
    """Add the stage's seconds to ``timings.json``, also if it is interrupted; errors name the file's keys."""
    path = out / "timings.json"
    began = time.monotonic()
    try:
        with told_as_keys(stage):
            yield
    finally:
        timings = parse(_Timings, read_json(path, "timings"), f"timings {path}").root if path.exists() else {}
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
    missed: tuple[TooSlow, ...]
    """Networks that were exported before, and measured over a latency budget."""
    left_out: tuple[LeftOut, ...]
    bundle: Path
    report: Path


def quickstart_config() -> PipelineConfig:
    """The embedded default: scikit-learn's digits on this machine's CPU."""
    with resources.as_file(resources.files("nat2deploy.run") / "quickstart.toml") as path:
        return load_pipeline(path)


def run_pipeline(config: PipelineConfig, out: Path, report: Report = silent) -> Outcome:
    """Do every stage in the folder ``out``; what is done is not done again, but exporting and verifying.

    The folder holds ``config.toml``, ``table.json``, ``supernet.safetensors`` (of several widths one each,
    such as ``supernet-w1.2.safetensors``), the run in ``search/``, the bundle in ``bundle/``, what verifying
    it found in ``verification.json``, each stage's seconds in ``timings.json``, and the report in
    ``report.html``.
    A killed pipeline goes on where it was, also with another ``[finetune]`` or ``[export]``: what was tuned
    in another way is tuned anew, and the bundle is replaced.

    Where the config leaves the choice, a network whose bundle measures over a latency budget is followed by
    the most accurate one of the front that is as much below it; three are exported at most.

    Raises:
        UserError: an input that cannot be used, or no network keeps the budgets.
    """
    with told_as_keys("profile"):
        _check(config, out)
    run = RunDirectory(out)
    run.begin(config, _CHANGEABLE)
    with run.locked():
        run.renew(config, _CHANGEABLE)
        table_path = out / "table.json"
        with _stage(out, "profile"):
            tables = _tables(config, table_path, report)
        with told_as_keys("export"):  # that of a table by name may be for another than [target]
            targets = [check_target(config.export, table.target) for table in tables]
            here = any(not elsewhere(table, target) for table, target in zip(tables, targets, strict=True))
            check_int8_options(config.export, {target.precision for target in targets}, here=here)
        with told_as_keys("profile"):
            _check_exits(config, table_path)
        with _stage(out, "train"):
            supernet = config.train.supernet or _train(config, out, report)
        with _stage(out, "search"):
            front = search(_search_config(config, supernet, table_path), out / "search", report)
        if front.best is None:
            raise UserError(
                front.note or "no network of the front keeps its budgets when measured; raise one"
            )
        made = deploy_front(config, front, out, partial(_stage, out), report)
        table = table_of(tables, made.manifest.architecture.get("precision"))
        written = write_report(out)
        return Outcome(out, table, front, **vars(made), report=written.report)


def _check(config: PipelineConfig, out: Path) -> None:
    """Refuse what a later stage would refuse, before the first one begins."""
    budgets_on(parse_budgets(list(config.budgets)), tuple(config.profile.tables))
    with told_as_keys("export"):
        target = check_target(config.export, config.target)
    check_devices(config.finetune.devices)
    for section, names in (("finetune", config.finetune.network), ("export", config.export.network)):
        for name in names.split(",") if section == "finetune" else [names]:
            _check_network(section, name, out)
    if config.train.supernet is None:
        check_devices((config.train.device,))
    space = _space(config)
    with told_as_keys("export"):
        check_stages(config.export, config.finetune, space)
    if config.train.start is not None:
        supernet_info(find_supernet(config.train.start))
    if config.profile.table or config.profile.tables or (out / "table.json").exists():
        _check_exits(config, out / "table.json")
    else:
        with told_as_keys("export"):  # for the table that is to be made
            check_int8_options(config.export, {target.precision}, here=True)
        load_data(config.data)  # all else reads it first


def _space(config: PipelineConfig) -> SearchSpace:
    """The space that is searched."""
    if config.train.supernet is None:
        return load_space(config.space.name).restrict(widths=config.train.widths or None)
    return searched_space(as_tuple(config.train.supernet), _searched(config))


def _check_exits(config: PipelineConfig, table: Path) -> None:
    """Check that the table, which is there now, tells what exits are to be pruned by."""
    tables = load_tables(_single(config, table), config.profile.tables)
    budgets = budgets_on(parse_budgets(list(config.budgets)), tuple(config.profile.tables))
    check_before_search(config.finetune, _space(config), tables, budgets)


def _single(config: PipelineConfig, made: Path) -> str | None:
    """The table that has no name: one made before, or else the one that is made here."""
    return None if config.profile.tables else config.profile.table or str(made)


def _check_network(section: str, name: str, out: Path) -> None:
    """Check the name of a network in the front that is there, or else that it may be one's."""
    front = RunDirectory(out / "search").front_path
    if name == "best" or (section, name) == ("finetune", "all"):
        return
    if front.exists() and (held := load_front(front)).complete:
        held.choose(name)
    elif not re.fullmatch(r"[0-9a-f]{1,10}", name):
        words = "best, all" if section == "finetune" else "best"
        raise UserError(
            f"[{section}] network: '{name[:60]}' is no network's id; write {words}, or an id of a front"
        )


def _tables(config: PipelineConfig, path: Path, report: Report) -> Sequence[LatencyTable]:
    """The latency table that the bundle is for, one of each precision to choose from: made here, or read."""
    tables = config.profile.tables
    if tables:
        held = load_tables(None, tables)
        space = load_space(config.space.name).restrict(resolutions=config.space.resolutions)
        check_tables(held, space, allow_uncertified=config.allow_uncertified)
        return held[config.export.target or next(iter(tables))]
    made = profile_once(config.space, config.target, config.profile, path, seed=config.seed, report=report)
    return [made]


def _train(config: PipelineConfig, out: Path, report: Report) -> SuperNetworkFiles:
    """Train a super-network, or one for each of several widths; returns their files."""

    def one(path: Path, settings: TrainConfig) -> str:
        train(config.space, config.data, settings, path, seed=config.seed, report=report)
        return str(path)

    widths = config.train.widths
    if len(widths) <= 1:
        return one(out / "supernet.safetensors", config.train)

    def of(width: float) -> TrainConfig:
        curve = config.train.curve and str(Path(config.train.curve) / f"w{width:g}")
        return config.train.model_copy(update={"width": width, "curve": curve})

    return tuple(one(out / f"supernet-w{width:g}.safetensors", of(width)) for width in widths)


def _search_config(config: PipelineConfig, supernet: SuperNetworkFiles, table: Path) -> SearchConfig:
    return SearchConfig(
        space=_searched(config),
        supernet=supernet,
        data=config.data,
        table=_single(config, table),
        tables=config.profile.tables,
        budgets=config.budgets,
        allow_uncertified=config.allow_uncertified,
        workers=config.workers,
        settings=config.search,
    )


def _searched(config: PipelineConfig) -> SearchedSpace:
    return SearchedSpace(name=config.space.name, resolutions=config.space.resolutions)
