"""A search that starts from an earlier run: its archive, and its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nat2deploy.errors import UserError
from nat2deploy.run.beginning import read_beginning
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.cost_source import load_tables, symmetric_int8
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.read_search import read_search
from nat2deploy.run.search_inputs import SearchInputs
from nat2deploy.search.archive import read_archive
from nat2deploy.search.initialisation import always_drawn
from nat2deploy.search.survival import reference_directions
from nat2deploy.search.warm_start import WarmStart, choose_start, load_start, save_start
from nat2deploy.supernet.checkpoint import supernet_info


def warm_start(config: SearchConfig, inputs: SearchInputs, out: Path) -> WarmStart:
    """Return what a search begins with: nothing but by ``config.start``, an earlier run, which is only read.

    What was chosen is kept in ``start.json`` of the new run.

    Raises:
        UserError: no such run, one of another space, or without any architecture of the searched space.
    """
    if config.start is None:
        return {}
    path = out / "start.json"
    if not path.exists():
        save_start(_choose(config, config.start, inputs), path)
    return load_start(path, inputs.space)


def open_earlier(start: str) -> SearchConfig:
    """Return the settings of an earlier run.

    Raises:
        UserError: no run, or one that has judged nothing yet.
    """
    run = RunDirectory(Path(start))
    config = read_search(run)
    if not (run.supernet_path.exists() and (run.path / "archive.jsonl").exists()):
        raise UserError(f"run {start} has not judged any network yet; go on with it, or leave out --from")
    return config


def check_start(config: SearchConfig, inputs: SearchInputs) -> None:
    """Check the earlier run before anything is written.

    Raises:
        UserError: as ``warm_start``.
    """
    if config.start is not None:
        _choose(config, config.start, inputs)


def _choose(config: SearchConfig, start: str, inputs: SearchInputs) -> WarmStart:
    run = RunDirectory(Path(start))
    earlier = open_earlier(start)
    info = supernet_info(run.supernet_path)
    if info.space.fingerprint != inputs.space.fingerprint:
        names = " and ".join(config.supernets)
        raise UserError(
            f"run {start} searched space '{info.space.name}', super-network {names} is of "
            f"'{inputs.space.name}'; start from a run of the same space"
        )
    settings, before = config.settings, earlier.settings
    begun = read_beginning(run)
    # An accuracy holds where weights, data and the images that are looked at are the same.
    same = (
        [Path(name).resolve() for name in config.supernets] == [run.supernet_path.resolve()]
        and config.data == earlier.data
        and (info.data, info.labels) == (inputs.data.name, inputs.data.labels)
        and (begun is None or begun.data == inputs.data.fingerprint(test=False))
        and max(info.space.resolutions) == max(inputs.space.resolutions)
        and all(
            getattr(settings, field) == getattr(before, field)
            for field in ("seed", "recalibration_images", "validation_images")
        )
    )
    held = read_archive(run.path / "archive.jsonl", info.space)
    if before.adapt_epochs == 0:  # versions count its rounds, and the weights of all are the same
        held = [replace(e, version=info.version) for e in held]
    evaluations = [e for e in held if e.images is None]
    eight = any(e.architecture.precision == "int8" for e in evaluations)
    if eight and "int8" in inputs.objectives.encoding.precisions:  # else none of its accuracies is taken over
        same = same and _int8_forms(earlier) == symmetric_int8(inputs.tables)
    if not any(inputs.space.contains(e.architecture) for e in evaluations):
        raise UserError(
            f"run {start} holds no architecture of the searched part of space '{inputs.space.name}'; "
            "search its resolutions and widths, or leave out --from"
        )
    always = always_drawn(inputs.objectives)
    return choose_start(
        evaluations,
        inputs.objectives,
        max(0, settings.archive_size - len(always)),
        version=info.version if same else None,
        without=always,
        seed=settings.seed,
        directions=reference_directions(len(inputs.objectives), settings.population),
    )


def _int8_forms(config: SearchConfig) -> tuple[bool, ...] | None:
    """Which forms of int8 a run judged in; None where its tables are gone."""
    try:
        return symmetric_int8(load_tables(config.table, config.tables))
    except UserError:
        return None
