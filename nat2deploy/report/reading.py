"""A run's files, read without a fault of one spoiling the others."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from nat2deploy.cost.table import LatencyTable, load_table
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, read_toml
from nat2deploy.report.formats import Bundle, Evaluated, Front, Round, SuperNetwork, Tuned, Verification
from nat2deploy.space.search_space import SearchSpace, load_space

Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")

_LARGEST_PART = 10_000_000


@dataclass
class RunFiles:
    """What could be read of a run; what is not there is None or empty.

    ``folder`` is that of the search. ``pipeline`` holds the settings of the whole way where the run is one.
    ``tables`` are by the target's name, which is empty for a single one without; several of a target are one
    of each precision. ``front`` is None, too, where the search has gone on since it was written. ``problems``
    says in words what is there but cannot be read.
    """

    name: str
    folder: Path
    pipeline: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    front: Front | None = None
    history: list[Round] = field(default_factory=list)
    archive: list[Evaluated] = field(default_factory=list)
    tuned: dict[str, Tuned] = field(default_factory=dict)
    bundle: Bundle | None = None
    verification: Verification | None = None
    timings: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[LatencyTable]] = field(default_factory=dict)
    supernet: SuperNetwork | None = None
    space: SearchSpace | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def every_table(self) -> list[tuple[str, LatencyTable]]:
        """All tables, each with its target's name."""
        return [(name, table) for name, tables in self.tables.items() for table in tables]


def read_run(path: Path, bundle: Path | None = None) -> RunFiles:
    """Read the run of a search, or of a pipeline; ``bundle`` is one that lies elsewhere.

    Raises:
        UserError: no run, or no bundle where one is said to be.
    """
    config_path = path / "config.toml"
    if not config_path.is_file():
        raise UserError(f"no run at {path}; make one with `nat2deploy search` or `nat2deploy quickstart`")
    config = read_toml(config_path, "run config")
    if "data" not in config:  # every run's names them
        raise UserError(f"{config_path} is no run's, it names no data; name the folder of a run")
    whole = "supernet" not in config  # a search always has one, a pipeline never
    folder = path / "search" if whole else path
    files = RunFiles(name=path.resolve().name, folder=folder)
    read = _Reader(files.problems)
    if whole:
        files.pipeline = _of_kinds(config, config_path, files.problems)
        held: dict[str, Any] = read(folder / "config.toml", lambda p: read_toml(p, "run config"), {})
        files.search = _of_kinds(held, folder / "config.toml", files.problems)
        files.timings = read(path / "timings.json", _numbers, {})
        files.verification = read.model(path / "verification.json", Verification)
    else:
        files.search = _of_kinds(config, config_path, files.problems)
    files.front = read.model(folder / "front.json", Front)
    files.history = read(folder / "history.json", _history, [])
    files.archive = read(folder / "archive.jsonl", _archive, [])
    if _is_older(files):
        files.front = None
    for place in sorted((folder / "networks").glob("*/finetune.json")):
        tuned = read.model(place, Tuned)
        if tuned is not None:
            files.tuned[tuned.id] = tuned
    if bundle is not None:
        files.bundle = parse(Bundle, _bundle(bundle), f"bundle {bundle}")
    elif whole and (path / "bundle").exists():
        files.bundle = read(path / "bundle", lambda p: parse(Bundle, _bundle(p), "bundle"), None)
    home, pipeline = (path, files.pipeline) if whole else _pipeline_of(path)
    files.tables = _tables(files.search, home, pipeline, read)
    files.supernet = read(folder / "supernet.safetensors", _supernet, None)
    files.space = _space(files)
    return files


def _is_older(files: RunFiles) -> bool:
    """Whether the front is of a stopped search that has gone on since, so that the archive says more."""
    front = files.front
    if front is None or front.complete or all(one.hypervolume is None for one in files.history):
        return False
    judged = sum(one.passed_by is None and not one.taken_over for one in files.archive)
    return judged > front.evaluations + 1  # as of ``run.front.current_front``


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("space", "tables", "settings", "profile"), dict),
    **dict.fromkeys(("budgets", "resolutions"), list),
    **dict.fromkeys(("table", "supernet"), str | list),
    **dict.fromkeys(("data", "start", "name"), str),
}
"""What a report reads of configs, the keys of ``profile`` and ``space`` among it."""


def _of_kinds(config: dict[str, Any], path: Path, problems: list[str]) -> dict[str, Any]:
    """Leave out of a config what is of another kind than it has to be, and note it."""
    found = {}
    for key, value in config.items():
        if not isinstance(value, _KINDS.get(key, object)):
            problems.append(f"{path.parent.name}/{path.name}: {key} cannot be read")
        elif key in ("space", "profile"):
            found[key] = _of_kinds(value, path, problems)
        else:
            found[key] = value
    return found


class _Reader:
    """Reads files that may be missing, and notes those that are broken."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def __call__(self, path: Path, how: Callable[[Path], Value], missing: Value) -> Value:
        if not path.exists():
            return missing
        try:
            return how(path)
        except (UserError, ArithmeticError, OSError, RecursionError, SafetensorError, TypeError, ValueError):
            self.problems.append(f"{path.parent.name}/{path.name} cannot be read")
            return missing

    def model(self, path: Path, model: type[Model]) -> Model | None:
        return self(path, lambda p: parse(model, read_json(p, p.name), p.name), None)


def _numbers(path: Path) -> dict[str, float]:
    found = {str(key): float(value) for key, value in dict(read_json(path, "timings")).items()}
    if not all(map(math.isfinite, found.values())):
        raise ValueError("no number of seconds")
    return found


def _history(path: Path) -> list[Round]:
    return [parse(Round, entry, "search history") for entry in read_json(path, "search history")]


def _archive(path: Path) -> list[Evaluated]:
    """The whole lines; the last one may be half written by a search that runs."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(Evaluated.model_validate(json.loads(line)))
        except (ValidationError, ValueError, RecursionError):
            continue
    return found


def _bundle(bundle: Path) -> Any:
    """The manifest, with what the evidence beside it holds."""
    try:
        manifest, evidence = _part(bundle, "manifest.json"), _part(bundle, "evidence.json")
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        # A zip that asks for a password, or is packed in an unknown way, is a RuntimeError.
        raise UserError(f"no bundle at {bundle}; make one with `nat2deploy export`") from error
    if manifest is None:
        raise UserError(f"no bundle at {bundle}; make one with `nat2deploy export`")
    measured = evidence.get("measured", []) if isinstance(evidence, dict) else []
    return {**manifest, "measured": measured} if isinstance(manifest, dict) else manifest


def _part(bundle: Path, name: str) -> Any:
    """One of a bundle's own files, None where it is not there."""
    if bundle.is_dir():
        path = bundle / name
        return read_json(path, path.stem) if path.exists() or name == "manifest.json" else None
    with zipfile.ZipFile(bundle) as archive:
        names = [n for n in archive.namelist() if n.rsplit("/", 1)[-1] == name]
        if not names:
            return None
        info = archive.getinfo(min(names, key=len))
        if info.file_size > _LARGEST_PART:
            raise UserError(f"the {Path(name).stem} of {bundle} is too large; export it again")
        return json.loads(archive.read(info))


def listed(value: Any) -> list[str]:
    """What a config gives as one text or as several."""
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def _pipeline_of(search: Path) -> tuple[Path, dict[str, Any]]:
    """The folder and config of the pipeline that a search is of; without one its own folder, and nothing."""
    folder = search.resolve().parent
    try:
        config = read_toml(folder / "config.toml", "run config") if search.resolve().name == "search" else {}
    except UserError:
        config = {}
    config = _of_kinds(config, folder / "config.toml", [])
    return (folder, config) if "data" in config and "supernet" not in config else (search, {})


def _tables(
    search: dict[str, Any], path: Path, pipeline: dict[str, Any], read: _Reader
) -> dict[str, list[LatencyTable]]:
    profile = pipeline.get("profile", {})
    own = bool(pipeline) and not (profile.get("table") or profile.get("tables"))
    named = search.get("tables") or profile.get("tables") or {}
    single = search.get("table") or str(path / "table.json")
    given = {str(name): listed(place) for name, place in named.items()} or {"": listed(single)}
    found: dict[str, list[LatencyTable]] = {}
    for name, texts in given.items():
        for text in texts:
            # A run that was moved or copied took its table along; one by name is the package's.
            beside = path / Path(text).name
            places = (beside, Path(text)) if own and beside.name == "table.json" else (Path(text), beside)
            table = next((one for place in places if (one := _table(place, read)) is not None), None)
            if table is not None:
                found.setdefault(name, []).append(table)
    return found


def _table(place: Path, read: _Reader) -> LatencyTable | None:
    try:
        if place.exists():
            return read(place, load_table, None)
    except OSError:  # no name of a file, it is too long for one
        return None
    if place.name != str(place):
        return None
    try:
        return load_table(place)
    except UserError:
        return None


def _supernet(path: Path) -> SuperNetwork:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    return parse(SuperNetwork, json.loads(metadata.get("nat2deploy", "{}")), "super-network")


def _space(files: RunFiles) -> SearchSpace | None:
    """The space that the super-network's file describes, else the one of the settings."""
    try:
        if files.supernet is not None and files.supernet.space:
            return SearchSpace.model_validate(files.supernet.space)
        name = files.pipeline.get("space", {}).get("name") or files.search.get("space", {}).get("name")
        return None if name is None else load_space(str(name))
    except (UserError, ValidationError):
        return None
