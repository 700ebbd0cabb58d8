"""Files that people write or that a run holds: tables, profiles, spaces, configs, archives, fronts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from fuzz.inputs import (
    Damage,
    Place,
    by_head,
    decoded,
    joined,
    of_json,
    of_lines,
    of_toml,
    packed,
    sometimes,
    split,
)
from fuzz.mutation import bytes_
from fuzz.target import Target
from nat2deploy.cost.coverage import check_serves
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import LatencyTable, load_table
from nat2deploy.files import parse, read_toml
from nat2deploy.measure.plan import CLASS_LADDER
from nat2deploy.report.facts import gather
from nat2deploy.report.payload import payload_of
from nat2deploy.report.reading import read_run
from nat2deploy.report.repeat import commands, settings_file
from nat2deploy.run.config import PipelineConfig, load_pipeline
from nat2deploy.run.finetune_report import read_report
from nat2deploy.run.front import load_front
from nat2deploy.run.pipeline import quickstart_config
from nat2deploy.search.archive import ArchiveFile
from nat2deploy.search.budget import budgets_on, parse_budgets
from nat2deploy.search.history import read_history
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import every_signature, lower
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.target import load_profile


def targets(folder: Path, run: Path) -> list[Target]:
    """All of this file; ``run`` is a small finished pipeline, of which the files' seeds are."""
    config = load_pipeline(run / "config.toml")
    space = load_space(config.space.name)
    table = load_table(Path(config.profile.table or run / "table.json"))

    def json_target(name: str, share: float, file: str, value: Any, feed: Callable[[Path], object]) -> Target:
        return Target(name, share, packed([value]), of_json, Place(folder, file).feeding(feed))

    def toml_target(name: str, share: float, file: str, value: Any, feed: Callable[[Path], object]) -> Target:
        seeds = packed([value], tomli_w.dumps)
        return Target(name, share, seeds, of_toml, Place(folder, file).feeding(feed))

    one = space.restrict(resolutions=space.resolutions[:1])
    finetuned = next((run / "search" / "networks").glob("*/finetune.json"))
    pipelines = [_plain(config), _plain(quickstart_config())]
    pipelines.append({**pipelines[1], "export": {"engine": "tensorrt", "sm": [86], "batch": "1:8"}})
    return [
        json_target("latency tables", 3, "table.json", _small(table, one), lambda path: _table(path, one)),
        toml_target("profiles", 4, "profile.toml", _profile(), lambda path: str(load_profile(path).target)),
        toml_target("spaces", 4, "space.toml", _dump(space), _space),
        *(
            toml_target(f"pipelines ({number})", 2, "pipeline.toml", value, _pipeline)
            for number, value in enumerate(pipelines, start=1)
        ),
        toml_target("search settings", 4, "settings.toml", _dump(config.search), _settings),
        _archive(folder, run, space),
        json_target("front.json", 6, "front.json", _json(run / "search/front.json"), _front),
        json_target("history.json", 3, "history.json", _json(run / "search/history.json"), read_history),
        json_target(
            "finetune.json", 3, "finetune.json", _json(finetuned), lambda path: read_report(path.parent)
        ),
        _reported(folder / "reported", run),
    ]


def _dump(model: Any) -> Any:
    return model.model_dump(mode="json", exclude_none=True)


def _plain(config: PipelineConfig) -> dict[str, Any]:
    """A config as people write it: what they leave out is left out."""
    value: dict[str, Any] = config.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return value


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _small(table: LatencyTable, space: SearchSpace) -> Any:
    """No more than a space's blocks."""
    keys = {signature.key for signature in every_signature(space, CLASS_LADDER)}
    entries = {key: entry for key, entry in table.entries.items() if key in keys}
    return table.model_copy(update={"entries": entries, "networks": table.networks[:2]}).model_dump(
        mode="json"
    )


def _profile() -> dict[str, Any]:
    shipped = load_profile(Path("raspberry-pi-5"))
    value: dict[str, Any] = shipped.model_dump(mode="json", exclude_none=True)
    return value


def _table(path: Path, space: SearchSpace) -> None:
    table = load_table(path)
    str(table.target), str(table.fingerprint)
    check_serves(table, space)
    CostModel(space, 10, table).values(space.smallest())


def _space(path: Path) -> None:
    space = load_space(str(path))
    encoding = IntegerEncoding(space)
    for architecture in (space.smallest(), space.largest()):
        encoding.decode(encoding.encode(architecture))
        lower(space, architecture, 10)


def _pipeline(path: Path) -> None:
    config = load_pipeline(path)
    budgets_on(parse_budgets(list(config.budgets)), tuple(config.profile.tables))
    again = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))  # as a run stores it
    path.write_text(again)
    if load_pipeline(path).model_dump_json() != config.model_dump_json():
        raise AssertionError("a config is another one once it is stored")


def _settings(path: Path) -> None:
    settings = parse(SearchSettings, read_toml(path, "search settings"), "search settings")
    tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def _front(path: Path) -> None:
    front = load_front(path)
    str(front.best)
    front.choose("best")


def _archive(folder: Path, run: Path, space: SearchSpace) -> Target:
    lines = (run / "search/archive.jsonl").read_bytes().splitlines(keepends=True)[:4]
    seeds = [b"".join(lines[:count]) for count in (1, 2, 4)]
    damage = sometimes(0.1, bytes_, of_lines(of_json))
    feed = Place(folder, "archive.jsonl").feeding(lambda path: ArchiveFile(path, space))
    return Target("archive.jsonl", 6, seeds, damage, feed)


def _reported(folder: Path, run: Path) -> Target:
    """A run of which one file is damaged: its report leaves that out."""
    names = (
        "search/front.json", "search/history.json", "timings.json", "verification.json",
        "bundle/manifest.json", "bundle/evidence.json", "search/archive.jsonl", "config.toml",
        "search/config.toml",
    )  # fmt: skip
    for name in (*names, "search/supernet.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((run / name).read_bytes())
    whole = {name: (run / name).read_bytes() for name in names}
    kinds: dict[str, Damage] = {".json": of_json, ".jsonl": of_lines(of_json), ".toml": of_toml}
    damages = {name: sometimes(0.1, bytes_, kinds[Path(name).suffix]) for name in names}

    def feed(data: bytes) -> None:
        head, content = split(data, 2)
        name = decoded(head) if decoded(head) in whole else names[0]
        (folder / name).write_bytes(content)
        try:
            facts = gather(read_run(folder))
            payload_of(facts)
            commands(facts.files)
            settings_file(facts.files)
        finally:
            (folder / name).write_bytes(whole[name])

    seeds = [joined(name, content) for name, content in whole.items()]
    return Target("runs that a report is of", 0.7, seeds, by_head(damages), feed)
