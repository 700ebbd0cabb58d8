"""One search over architectures and their precisions: every stage keeps what was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nat2deploy.cli.render import print_front
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UnfitNetworkError, UserError
from nat2deploy.files import parse
from nat2deploy.run.config import ExportConfig, FinetuneConfig, PipelineConfig, SearchConfig, load_pipeline
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.finetune import finetune
from nat2deploy.run.front import load_front
from nat2deploy.run.pipeline import run_pipeline
from nat2deploy.run.search import search
from nat2deploy.training.evaluation import SubNetworkEvaluator

PRECISIONS = {"fp32", "int8"}


@pytest.fixture(scope="module")
def tables(outcome, tmp_path_factory):
    """This machine's table, and one that says that 8 bits take longer: each is the best at something."""
    folder = tmp_path_factory.mktemp("tables")
    here = load_table(outcome.out / "table.json")
    eight = here.model_copy(
        update={
            "target": here.target.model_copy(update={"precision": "int8"}),
            "entries": {key: entry.scaled(2.0) for key, entry in here.entries.items()},
        }
    )
    for name, table in (("fp32", here), ("int8", eight)):
        save_table(table, folder / f"{name}.json")
    return str(folder / "int8.json"), str(folder / "fp32.json")


@pytest.fixture(scope="module")
def config(outcome, tables):
    held = RunDirectory(outcome.out / "search").read_config(SearchConfig)
    return held.model_copy(update={"table": tables, "tables": {}, "budgets": ("latency<=50ms", "size<=1MB")})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("precisions") / "run"
    search(config, out)
    return out


def archived(run):
    return [json.loads(line) for line in (run / "archive.jsonl").read_text().splitlines()]


def of_precision(run, precision):
    """A network of the front; the best of that precision."""
    return all_of_precision(run, precision)[0]


def all_of_precision(run, precision):
    """The front's networks of a precision, the most accurate first."""
    found = [n for n in load_front(run / "front.json").networks if n.precision == precision]
    assert found, f"the front has no network of {precision}"
    return sorted(found, key=lambda n: -n.top1)


def first_that_exports(run, precision, out):
    """A network and its manifest; one whose engine is worse than was searched gives way, as in a pipeline."""
    refused = []
    for network in all_of_precision(run, precision):
        try:
            return network, export(run, ExportConfig(network=network.id), out)
        except UnfitNetworkError as error:
            refused.append(str(error))
    pytest.fail("; ".join(refused))


def test_both_precisions_are_judged_and_measured(run, outcome):
    rounds = {(line["version"], line["architecture"]["precision"]) for line in archived(run)}
    assert {precision for _, precision in rounds} == PRECISIONS
    front = load_front(run / "front.json")
    assert front.networks and front.note == ""
    assert {n.precision for n in front.networks} == PRECISIONS
    assert all(n.measured is not None for n in front.networks)


def test_the_precision_decides_every_cost_and_the_accuracy(run):
    first = [line for line in archived(run) if line["version"] == 0]
    pairs: dict[str, dict[str, dict]] = {}
    for line in first:
        plain = {k: v for k, v in line["architecture"].items() if k != "precision"}
        pairs.setdefault(json.dumps(plain), {})[line["architecture"]["precision"]] = line
    both = [pair for pair in pairs.values() if len(pair) == 2]
    assert len(both) >= 2  # the smallest and the largest at least
    for pair in both:
        eight, exact = (pair[p]["values"] for p in ("int8", "fp32"))
        assert eight["macs"] == exact["macs"]
        assert eight["memory_mb"] == pytest.approx(exact["memory_mb"] / 4)
        assert eight["size_mb"] < 0.5 * exact["size_mb"]
        assert eight["latency_ms"] > exact["latency_ms"]
        assert pair["int8"]["loss"] != pair["fp32"]["loss"]


def test_it_goes_on_with_the_same_result(run, config):
    before = (run / "archive.jsonl").read_bytes()
    search(config, run)
    assert (run / "archive.jsonl").read_bytes() == before


def test_a_killed_search_ends_with_the_same_archive(run, config, tmp_path):
    def kill(stage, done, total, text=""):
        if stage.startswith("round 1/") and "evaluate" in stage and done == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        search(config, tmp_path / "run", kill)
    search(config, tmp_path / "run")
    assert (tmp_path / "run" / "archive.jsonl").read_bytes() == (run / "archive.jsonl").read_bytes()


def test_the_printed_front_has_a_column_of_them(run, outcome, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_front(load_front(run / "front.json"), run, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["network", "precision"] for line in lines)
    assert any(line.split()[1:2] == ["int8"] for line in lines)
    print_front(load_front(outcome.out / "search" / "front.json"), run, as_json=False)
    assert not any(line.split()[1:2] == ["precision"] for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_a_bundle_holds_the_precision_that_was_found(run, tmp_path, precision):
    chosen, manifest = first_that_exports(run, precision, tmp_path / "bundle")
    assert manifest.target.precision == precision
    assert manifest.network == chosen.id
    assert manifest.costs.latency_ms == pytest.approx(chosen.costs["latency_ms"])
    assert manifest.evidence.accuracy.top1 == pytest.approx(chosen.top1, abs=0.15)


def test_an_engine_that_is_worse_than_what_was_searched_is_not_exported(run, tmp_path, monkeypatch):
    chosen = of_precision(run, "int8")
    monkeypatch.setattr(SubNetworkEvaluator, "first_classes", lambda *given: given[-1].targets)
    with pytest.raises(
        UserError, match=r"as the search simulates them have 100\.00%; give --max-accuracy-drop"
    ):
        export(run, ExportConfig(network=chosen.id), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    config = ExportConfig(network=chosen.id, max_accuracy_drop=1.0)
    assert export(run, config, tmp_path / "bundle").target.precision == "int8"


def test_options_for_8_bits_that_do_nothing_are_told(run, tmp_path):
    chosen, said = of_precision(run, "fp32"), []
    config = ExportConfig(network=chosen.id, qat_epochs=1.0, max_accuracy_drop=0.1)
    made = export(run, config, tmp_path / "bundle", lambda *told: said.append(told[-1]))
    assert made.target.precision == "fp32"
    (remark,) = [text for text in said if "chose fp32" in str(text)]
    assert remark == (
        f"the search chose fp32 for network {chosen.id}, where qat_epochs and max_accuracy_drop do nothing; "
        "export it with --precision int8 for that"
    )


def test_fine_tuning_is_judged_in_the_precision(run, tmp_path):
    chosen = of_precision(run, "int8")
    (report,) = finetune(run, FinetuneConfig(network=chosen.id, epochs=0.5, batch_size=64))
    last = [line for line in archived(run) if line["id"] == chosen.id][-1]
    assert report.validation_before.top1 == pytest.approx(last["values"]["top1"])
    manifest = export(run, ExportConfig(network=chosen.id), tmp_path / "bundle")
    assert manifest.target.precision == "int8"
    # The engine's accuracy, against the simulated one.
    assert manifest.evidence.accuracy.top1 == pytest.approx(report.test.top1, abs=0.02)


def test_a_later_search_starts_from_it_in_one_precision(run, config, tables, tmp_path):
    later = config.model_copy(
        update={"start": str(run), "supernet": str(run / "supernet.safetensors"), "table": tables[1]}
    )
    search(later, tmp_path / "run")
    assert all("precision" not in line["architecture"] for line in archived(tmp_path / "run"))
    start = json.loads((tmp_path / "run" / "start.json").read_text())["networks"]
    assert any(network["top1"] is not None for network in start)


def test_what_does_not_go_together_is_refused(config, tables, tmp_path):
    eight, exact = tables
    board = load_table(Path(eight)).model_copy(
        update={"target": load_table(Path(eight)).target.model_copy(update={"batch": 4})}
    )
    save_table(board, tmp_path / "board.json")
    other = load_table(Path(eight))
    other = other.model_copy(update={"target": other.target.model_copy(update={"backend": "openvino"})})
    save_table(other, tmp_path / "openvino.json")
    for changes, says in (
        ({"table": (exact, str(tmp_path / "openvino.json"))}, "are of different targets; give each a name"),
        ({"table": (exact, exact)}, "is not the only one of fp32; give one table a precision"),
        ({"table": (exact, str(tmp_path / "board.json"))}, "are of different targets; give each a name"),
        ({"table": None, "tables": {"a": (exact, eight), "b": exact}}, "target b has no table of int8"),
    ):
        with pytest.raises(UserError, match=says):
            search(config.model_copy(update=changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pipeline_chooses_precisions(outcome, config_path, tables, tmp_path):
    whole = load_pipeline(config_path).model_dump(exclude_none=True)
    whole["profile"]["tables"] = {"here": tables}
    whole["budgets"] = ["latency@here<=2s"]
    whole["search"]["rounds"] = 1
    whole["train"]["supernet"] = str(outcome.out / "supernet.safetensors")
    found = run_pipeline(parse(PipelineConfig, whole, "config"), tmp_path / "run")
    assert found.manifest.target.precision == found.manifest.architecture["precision"]
    assert found.table.target.precision == found.manifest.target.precision
