"""One search for several targets: this machine and a board that is not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nat2deploy.cost.table import load_table, save_table
from nat2deploy.engines.cores import available_cores
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run.config import ExportConfig, PipelineConfig, SearchConfig, load_pipeline
from nat2deploy.run.export import export
from nat2deploy.run.front import load_front
from nat2deploy.run.pipeline import run_pipeline
from nat2deploy.run.search import search

THREADS = available_cores() + 1  # the board's; many more would wait for each other here


@pytest.fixture(scope="module")
def tables(outcome, tmp_path_factory):
    """This machine's table, and one of a board that is nine times as slow."""
    folder = tmp_path_factory.mktemp("tables")
    here = load_table(outcome.out / "table.json")
    times = [name for name in type(here.calibration).model_fields if "ms" in name.split("_")]
    slower = {name: 9.0 * getattr(here.calibration, name) for name in times}
    board = here.model_copy(
        update={
            "fingerprint": here.fingerprint.model_copy(update={"cpu": "A board", "cores": THREADS}),
            "target": here.target.model_copy(update={"threads": THREADS}),
            "calibration": here.calibration.model_copy(update=slower),
            "entries": {key: entry.scaled(9.0) for key, entry in here.entries.items()},
        }
    )
    for name, table in (("here", here), ("board", board)):
        save_table(table, folder / f"{name}.json")
    return {name: str(folder / f"{name}.json") for name in ("board", "here")}


@pytest.fixture(scope="module")
def config(short_search, tables):
    budgets = ("latency@board<=2s", "latency@here<=50ms", "params<=20k")
    return short_search.model_copy(update={"table": None, "tables": tables, "budgets": budgets})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("targets") / "run"
    search(config, out)
    return out


def test_every_targets_costs_are_kept_and_this_machines_measured(run):
    front = load_front(run / "front.json")
    assert front.objectives == ("top1", "latency_ms@board", "latency_ms@here", "params")
    assert front.note == "this machine is not that of board, so nothing was measured for it here"
    assert front.networks
    for network in front.networks:
        assert network.measured is None and set(network.measured_on) == {"here"}
        assert network.costs["latency_ms@board"] == pytest.approx(9 * network.costs["latency_ms@here"])
        assert network.costs["size_mb@board"] == network.costs["size_mb@here"]
    line = json.loads((run / "archive.jsonl").read_text().splitlines()[0])
    assert line["values"].keys() == {"top1", *front.networks[0].costs}


def test_it_goes_on_with_the_same_result(run, config):
    before = (run / "archive.jsonl").read_bytes()
    search(config, run)
    assert (run / "archive.jsonl").read_bytes() == before


def test_a_bundle_is_for_one_of_them(run, tmp_path):
    with pytest.raises(UserError, match="say which target the bundle is for; the run's are"):
        export(run, ExportConfig(), tmp_path / "bundle")
    with pytest.raises(UserError, match="no target 'pi5'"):
        export(run, ExportConfig(target="pi5"), tmp_path / "bundle")
    manifest = export(run, ExportConfig(target="board"), tmp_path / "bundle")
    assert manifest.target.threads == THREADS
    assert [(b.text, b.metric) for b in manifest.budgets] == [
        ("latency@board<=2s", "latency_ms"),
        ("params<=20k", "params"),
    ]
    best = load_front(run / "front.json").best
    assert manifest.costs.latency_ms == pytest.approx(best.costs["latency_ms@board"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"budgets": ("latency<=5ms",)}, r"'latency<=5ms': .* say which by @board or @here"),
        ({"budgets": ("latency@pi5<=5ms",)}, "no target 'pi5'; the tables are of board, here"),
        ({"allow_uncertified": False}, "target (board|here): the latency table has no certificate"),
    ],
)
def test_what_several_targets_refuse(config, tables, tmp_path, changes, says):
    if "allow_uncertified" in changes:
        bare = load_table(Path(tables["here"])).model_copy(update={"certificate": None})
        save_table(bare, tmp_path / "bare.json")
        changes = {**changes, "tables": {"here": str(tmp_path / "bare.json")}, "budgets": ()}
    with pytest.raises(UserError, match=says):
        search(config.model_copy(update=changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tables_that_do_not_go_together(config, tables, tmp_path):
    table = load_table(Path(tables["board"]))
    other = table.model_copy(update={"resolutions": (16,)})
    save_table(other, tmp_path / "other.json")
    mixed = config.model_copy(update={"tables": {**tables, "other": str(tmp_path / "other.json")}})
    with pytest.raises(UserError, match="target other: the latency table has no resolution 20, only 16"):
        search(mixed, tmp_path / "run")
    entries = dict(list(table.entries.items())[1:])
    save_table(
        table.model_copy(update={"space_fingerprint": "0" * 16, "entries": entries}), tmp_path / "other.json"
    )
    with pytest.raises(UserError, match="target other: the latency table is of space"):
        search(mixed, tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"table": "a.json", "tables": {"a": "a.json"}}, "not both"),
        ({"tables": {"a b": "a.json"}}, "a target cannot be called 'a b'"),
    ],
)
def test_configs_that_say_two_things(fields, says):
    with pytest.raises(UserError, match=says):
        parse(SearchConfig, {"supernet": "w", "data": "digits", **fields}, "config")
    with pytest.raises(UserError, match=says):
        parse(PipelineConfig, {"data": "digits", "profile": fields}, "config")


def test_a_pipeline_of_several_tables(outcome, config_path, tables, tmp_path):
    whole = load_pipeline(config_path).model_dump(exclude_none=True)
    whole["profile"]["tables"] = tables
    whole["budgets"] = ["latency@board<=2s", "params<=20k"]
    with pytest.raises(UserError, match="choose the bundle's target from board, here"):
        parse(PipelineConfig, whole, "config")
    whole["export"]["target"] = "board"
    whole["search"]["rounds"] = 1
    whole["train"]["supernet"] = str(outcome.out / "supernet.safetensors")
    found = run_pipeline(parse(PipelineConfig, whole, "config"), tmp_path / "run")
    assert found.table.fingerprint.cpu == "A board"
    assert found.manifest.target.threads == THREADS
    assert not (tmp_path / "run" / "table.json").exists()


def test_layers_that_are_faster_in_8_bits_need_a_table_of_8_bits(config_path, tables, tmp_path):
    whole = load_pipeline(config_path).model_dump(exclude_none=True)
    whole["profile"]["tables"] = {"board": tables["board"]}
    whole["export"]["int8_layers"] = "faster"
    with pytest.raises(UserError, match=r"the bundle is in fp32; add \[export\] precision int8"):
        run_pipeline(parse(PipelineConfig, whole, "config"), tmp_path / "run")
    assert not (tmp_path / "run" / "supernet.safetensors").exists()


def test_a_table_that_no_bundle_can_be_for_is_refused_before_searching(config_path, tables, tmp_path):
    board = load_table(Path(tables["board"]))
    openvino = board.target.model_copy(update={"backend": "openvino", "precision": "bf16"})
    save_table(board.model_copy(update={"target": openvino}), tmp_path / "bf16.json")
    whole = load_pipeline(config_path).model_dump(exclude_none=True)
    whole["profile"]["tables"] = {"board": str(tmp_path / "bf16.json")}
    with pytest.raises(UserError, match="a bundle for onnxruntime holds fp32 and int8, not bf16"):
        run_pipeline(parse(PipelineConfig, whole, "config"), tmp_path / "run")
    assert not (tmp_path / "run" / "supernet.safetensors").exists()
