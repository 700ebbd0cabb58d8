import json
import shutil
import sys
import tomllib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from early_run import make_run
from jsonschema import Draft202012Validator

from nat2deploy.cli.app import main
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.data.load import load_data
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.verify import Check
from nat2deploy.engines.tensorrt_plan import MODULES, open_package
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.report.reading import read_run
from nat2deploy.run import deploy_front as deploying
from nat2deploy.run import pipeline
from nat2deploy.run.config import PipelineConfig, SearchConfig, load_pipeline
from nat2deploy.run.cost_source import load_tables
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.exit_costs import check_before_search
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.pipeline import quickstart_config, run_pipeline
from nat2deploy.run.read_search import read_search
from nat2deploy.run.schema import schemas
from nat2deploy.run.search import search
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import load_space


def test_every_stage_leaves_its_file(outcome):
    for name in ("config.toml", "table.json", "supernet.safetensors", "timings.json", "verification.json"):
        assert (outcome.out / name).stat().st_size > 0
    for name in ("config.toml", "archive.jsonl", "supernet.safetensors", "front.json", "history.json"):
        assert (outcome.out / "search" / name).stat().st_size > 0
    for name in ("model.onnx", "manifest.json", "run.py"):
        assert (outcome.bundle / name).stat().st_size > 0
    timings = json.loads((outcome.out / "timings.json").read_text())
    assert set(timings) == {"profile", "train", "search", "finetune", "export"}


def test_the_report_shows_the_whole_way_and_nothing_of_the_machines_folders(outcome):
    page = outcome.report.read_text()
    assert outcome.report == outcome.out / "report.html"
    assert all(network.id in page for network in outcome.front.networks)
    assert f"{100 * outcome.manifest.evidence.accuracy.top1:.2f} %" in page
    assert "Verified after export" in page and "cannot be read" not in page
    assert str(outcome.out) not in page and str(outcome.out.parent) not in page
    pictures = {path.name for path in (outcome.out / "report").iterdir()}
    assert pictures >= {"front.png", "latency.png", "search.png", "stages.png"}


def test_no_temporary_file_is_left(outcome):
    hidden = [p for p in outcome.out.rglob(".*") if p.name not in (".lock",)]
    assert hidden == []


def test_the_front_keeps_the_budgets_and_was_measured(outcome):
    assert outcome.front.complete and outcome.front.networks
    for network in outcome.front.networks:
        assert network.costs["params"] <= 20_000
        assert network.measured is not None
        assert network.feasible == (network.measured.median_ms <= 50)


def test_the_front_is_not_dominated_and_learnt_something(outcome):
    networks = outcome.front.networks
    for a in networks:
        for b in networks:
            better = b.top1 >= a.top1 and all(b.costs[m] <= a.costs[m] for m in ("latency_ms", "params"))
            strictly = b.top1 > a.top1 or any(b.costs[m] < a.costs[m] for m in ("latency_ms", "params"))
            assert not (better and strictly)
    assert outcome.front.best is not None and outcome.front.best.top1 > 0.4


def test_the_archive_has_each_rounds_evaluations(outcome):
    lines = [json.loads(x) for x in (outcome.out / "search" / "archive.jsonl").read_text().splitlines()]
    roles = {(line["version"], line["role"]) for line in lines}
    assert roles == {(0, "archive"), (0, "candidate"), (1, "archive"), (1, "candidate"), (2, "archive")}
    seen = [(line["version"], line["id"]) for line in lines]
    assert len(seen) == len(set(seen)) == outcome.front.evaluations


def test_the_bundle_is_the_fine_tuned_network(outcome):
    (tuned,) = outcome.finetuned
    assert outcome.manifest.network == tuned.id == outcome.front.best.id
    assert outcome.manifest.evidence.accuracy.top1 == pytest.approx(tuned.test.top1)
    assert tuned.test.images == len(load_data("digits").test)
    assert all(check.ok for check in outcome.verification.checks)


def test_the_stored_config_is_complete_and_the_same_settings(outcome, config_path):
    stored = outcome.out / "config.toml"
    text = tomllib.loads(stored.read_text())
    Draft202012Validator(json.loads(schemas()["config.schema.json"])).validate(text)
    assert load_pipeline(stored) == load_pipeline(config_path)
    optional = {"workers"} | {k for k, v in load_pipeline(stored).model_dump().items() if v is None}
    assert text.keys() == PipelineConfig.model_fields.keys() - optional
    assert text["search"].keys() >= {k for k, v in SearchSettings().model_dump().items() if v is not None}


def test_a_search_is_repeated_by_the_config_that_it_stored(outcome, tmp_path):
    again = search(RunDirectory(outcome.out / "search").read_config(SearchConfig), tmp_path / "again")
    assert (tmp_path / "again" / "archive.jsonl").read_bytes() == (
        outcome.out / "search" / "archive.jsonl"
    ).read_bytes()
    assert [n.id for n in again.networks] == [n.id for n in outcome.front.networks]


def test_a_stages_own_seed_counts_and_else_that_of_the_whole_way(outcome, config_path, tmp_path):
    words = {**tomllib.loads(config_path.read_text()), "seed": 3}
    config = PipelineConfig.model_validate({**words, "search": {**words["search"], "seed": 5}})
    assert (config.search.seed, config.finetune.seed) == (5, 3)
    other = PipelineConfig.model_validate({**words, "finetune": {**words["finetune"], "seed": 7}})
    assert (other.search.seed, other.finetune.seed) == (3, 7)
    RunDirectory(tmp_path).begin(config)
    assert load_pipeline(tmp_path / "config.toml") == config
    with pytest.raises(UserError, match=r"other settings \(finetune.seed, search.seed\)"):
        RunDirectory(tmp_path).begin(other)


def test_the_stages_are_given_the_seeds_that_count(outcome, config_path, tmp_path, monkeypatch):
    words = tomllib.loads(config_path.read_text()) | {"seed": 3}
    words["profile"] = {"table": str(outcome.out / "table.json")}
    words["train"] = {"supernet": str(outcome.out / "supernet.safetensors")}
    config = PipelineConfig.model_validate({**words, "search": {**words["search"], "seed": 5}})
    seen = []

    def searched(given, *_):
        seen.append(given.settings.seed)
        return outcome.front

    def tuned(run, given, *_):
        seen.append(given.seed)
        raise UserError("seen")

    monkeypatch.setattr(pipeline, "search", searched)
    monkeypatch.setattr(deploying, "finetune", tuned)
    with pytest.raises(UserError, match=r"^seen$"):
        run_pipeline(config, tmp_path / "run")
    assert seen == [5, 3]


def test_other_settings_are_refused(outcome, config_path):
    config = load_pipeline(config_path).model_copy(update={"seed": 4})
    with pytest.raises(UserError, match="other settings \\(seed\\)"):
        run_pipeline(config, outcome.out)


def test_a_folder_that_is_no_run_is_refused(tmp_path, config_path):
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(UserError, match="not a run"):
        run_pipeline(load_pipeline(config_path), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_quickstart_config_is_valid_and_its_budgets_can_be_kept():
    config = quickstart_config()
    space = load_space(config.space.name).restrict(resolutions=config.space.resolutions)
    assert config.data == "digits"
    genes = IntegerEncoding(space).encode(space.smallest())
    assert parse_architecture(space, space.smallest().to_json()) == IntegerEncoding(space).decode(genes)


def test_the_checked_in_examples_are_valid(request):
    folder = request.config.rootpath / "examples"
    found = sorted(folder.glob("*.toml"))
    assert found
    for path in found:
        config = load_pipeline(path)
        load_space(config.space.name).restrict(resolutions=config.space.resolutions)


@pytest.mark.parametrize("option", ["python = '/opt/python'", "ssh_options = ['Port=2']"])
def test_how_to_reach_a_device_is_for_devices_elsewhere(config_path, tmp_path, option):
    text = config_path.read_text().replace("[profile]", f"[profile]\n{option}")
    path = tmp_path / "config.toml"
    path.write_text(text.replace("[profile]", "[profile]\ndevice = 'ssh://pi@there'"))
    assert load_pipeline(path).profile.device == "ssh://pi@there"
    path.write_text(text)
    with pytest.raises(
        UserError, match=f"{option.split()[0]} is for a device ssh://...; leave it out for cpu"
    ):
        load_pipeline(path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": "digit"}, "did you mean digits"),
        ({"train": {"start": "absent"}}, "no super-network absent"),
        ({"export": {"sm": [86]}}, r"^\[export\] sm: onnxruntime does not compile ahead"),
        (
            {"export": {"engine": "openvino", "save_optimised": True}},
            r"^\[export\] save_optimised: it is for ONNX",
        ),
        ({"export": {"batch": "1:8"}}, r"^\[export\] batch: a range is for TensorRT"),
        (
            {"export": {"qat_epochs": 1.0}},
            r"^\[export\] qat_epochs: the bundle is in fp32; add \[export\] precision int8",
        ),
        (
            {"export": {"stages": True}},
            r"^\[export\] stages: networks of .* have one exit; give them more with",
        ),
        (
            {"export": {"stages": True}, "finetune": {"method": "aep", "phases": 2}},
            r"^\[export\] stages: thresholds .* which \[finetune\] phases 2 trains on, too",
        ),
        ({"export": {"network": "nope"}}, r"^\[export\] network: 'nope' is no network's id; write best, or"),
        ({"finetune": {"network": "ab12,nope"}}, r"^\[finetune\] network: 'nope' .* write best, all, or"),
        ({"finetune": {"devices": ["cuda:99"]}}, "device cuda:99 is not here"),
        ({"train": {"device": "cuda:99"}}, "device cuda:99 is not here"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured_or_written(config_path, tmp_path, changed, words):
    config = load_pipeline(config_path)
    wrong = PipelineConfig.model_validate(config.model_dump() | changed)
    with pytest.raises(UserError, match=words):
        run_pipeline(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_engine_that_cannot_be_made_here_is_said_at_the_beginning(config_path, tmp_path, monkeypatch):
    def refused(words, **export):
        whole = load_pipeline(config_path).model_dump() | {"export": export}
        with pytest.raises(UserError, match=words):
            run_pipeline(PipelineConfig.model_validate(whole), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    monkeypatch.setitem(sys.modules, "openvino", None)  # what an import finds when it is not installed
    monkeypatch.delitem(sys.modules, "nat2deploy.engines.openvino", raising=False)
    refused("backend openvino cannot be used", engine="openvino")
    monkeypatch.setitem(MODULES, "tensorrt-rtx", "no_such_package")
    open_package.cache_clear()
    refused(r"^\[export\] sm: backend tensorrt-rtx is not installed", engine="tensorrt-rtx", sm=[86])
    open_package.cache_clear()


def test_a_target_by_name_is_one_of_the_tables(config_path):
    whole = load_pipeline(config_path).model_dump() | {"export": {"target": "pi5"}}
    with pytest.raises(
        UserError, match=r"export: target is one of \[profile.tables\], of which there are none"
    ):
        parse(PipelineConfig, whole, "config")


def exit_pruning(config_path, folder, exits="one", **finetune):
    """A pipeline that prunes exits, with a made-up table of another machine, which knows no energy."""
    run = make_run(folder, exits=exits)
    changed = {
        "space": {"name": str(folder / "early.toml")},
        "profile": {"table": str(folder / "table.json")},
        "train": {"supernet": str(run / "supernet.safetensors")},
        "finetune": {"method": "aep", **finetune},
    }
    return PipelineConfig.model_validate(load_pipeline(config_path).model_dump() | changed)


@pytest.mark.parametrize(
    ("exits", "prune", "words"),
    [
        ("one", ["energy"], "'energy_mj' is not known: the latency table says nothing of energy"),
        ("final", ["latency"], "'latency_ms' is not known of networks with added exits"),
        ("one", ["latency@pi5"], "there is no target 'pi5'"),
    ],
)
def test_exits_are_pruned_by_what_will_be_known(config_path, tmp_path, exits, prune, words):
    config = exit_pruning(config_path, tmp_path, exits, prune=prune)
    with pytest.raises(UserError, match=words):
        run_pipeline(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_made_on_the_way_is_asked_before_training(config_path, tmp_path, monkeypatch):
    config = exit_pruning(config_path, tmp_path, prune=["energy"])
    config = config.model_copy(update={"profile": load_pipeline(config_path).profile})

    def made(space, target, profile, path, **_):
        shutil.copy(tmp_path / "table.json", path)
        return load_table(path)

    monkeypatch.setattr(pipeline, "profile_once", made)
    monkeypatch.setattr(pipeline, "search", lambda *_: pytest.fail("searched"))
    with pytest.raises(UserError, match="says nothing of energy"):
        run_pipeline(config, tmp_path / "out")


@pytest.mark.parametrize("here", [False, True])
def test_what_is_measured_on_the_way_may_be_pruned_by(tmp_path, here):
    make_run(tmp_path, exits="final", here=here)
    space, tables = load_space(str(tmp_path / "early.toml")), load_tables(str(tmp_path / "table.json"), {})
    config = FinetuneConfig(method="aep", prune=("latency",))
    budgets = parse_budgets(["latency<=50ms", "params<=20k", "top1>=0.5"])
    with nullcontext() if here else pytest.raises(UserError, match="added exits"):
        check_before_search(config, space, tables, budgets)
    check_before_search(FinetuneConfig(), space, tables, budgets)
    check_before_search(FinetuneConfig(method="aep", prune=("macs",)), space, tables, budgets[1:])


def test_it_goes_on_with_another_fine_tuning_and_export(outcome, config_path, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(outcome.out, out)
    config = load_pipeline(config_path)
    other = next(one.id for one in outcome.front.networks if one.id != outcome.front.best.id)
    exported = config.export.model_copy(update={"batch": "2", "network": other})
    shorter = config.finetune.model_copy(update={"epochs": 0.5})
    changed = config.model_copy(update={"export": exported, "finetune": shorter})
    made = run_pipeline(changed, out)
    assert load_pipeline(out / "config.toml") == changed
    assert made.manifest.network == other and made.manifest.target.batch == 2
    assert [(one.id, one.config.epochs) for one in made.finetuned] == [(other, 0.5)]
    with open_bundle(made.bundle) as bundle:
        assert (bundle.manifest.network, bundle.manifest.target.batch) == (other, 2)
    again = run_pipeline(config.model_copy(update={"finetune": shorter}), out)
    assert again.manifest.network == outcome.front.best.id
    assert [one.config.epochs for one in again.finetuned] == [0.5]
    stored = (out / "config.toml").read_bytes()
    with pytest.raises(UserError, match="no network 'abc' in the front; choose from best, "):
        run_pipeline(
            config.model_copy(update={"export": exported.model_copy(update={"network": "abc"})}), out
        )
    with pytest.raises(
        UserError, match=r"settings \(seed\).* \(it may have another \[finetune\] and \[export\]\)"
    ):
        run_pipeline(changed.model_copy(update={"seed": 4}), out)
    assert (out / "config.toml").read_bytes() == stored


def test_a_folder_that_was_moved_is_used_with_the_table_in_it(outcome, config_path, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(outcome.out, moved)
    stored = moved / "search" / "config.toml"
    stored.write_text(stored.read_text().replace(str(outcome.out), "runs/where-it-was"))
    config = load_pipeline(config_path)
    tuning = config.finetune
    assert finetune(moved / "search", tuning) == outcome.finetuned
    assert read_search(RunDirectory(moved / "search")).table == str(moved / "table.json")
    (moved / "config.toml").unlink()  # a file of that name in any other folder may be another table
    with pytest.raises(UserError, match="where-it-was"):
        finetune(moved / "search", tuning)


def test_a_folder_that_was_copied_is_used_with_its_own_table_while_the_first_is_there(outcome, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(outcome.out, copied)
    search = RunDirectory(copied / "search")
    assert str(outcome.out / "table.json") == search.read_config(SearchConfig).table
    assert read_search(search).table == str(copied / "table.json")
    table = load_table(copied / "table.json")
    save_table(table.model_copy(update={"seed": table.seed + 1}), copied / "table.json")
    for run in (copied, copied / "search"):
        assert [one.seed for _, one in read_run(run).every_table] == [table.seed + 1]
    # One that was given stays that one.
    stored = copied / "config.toml"
    stored.write_text(stored.read_text().replace("[profile]", '[profile]\ntable = "given/table.json"'))
    assert read_search(search).table == str(outcome.out / "table.json")
    assert [one.seed for _, one in read_run(copied).every_table] == [table.seed]


def test_an_unfinished_one_goes_on_where_its_folder_is_now(outcome, config_path, tmp_path, monkeypatch):
    """Under another spelling of its folder, too."""
    moved = tmp_path / "moved"
    shutil.copytree(outcome.out, moved)
    stored = moved / "search" / "config.toml"
    stored.write_text(stored.read_text().replace(str(outcome.out), "runs/where-it-was"))
    lines = (moved / "search" / "archive.jsonl").read_bytes().splitlines(keepends=True)
    (moved / "search" / "archive.jsonl").write_bytes(b"".join(lines[:-2]))
    (moved / "search" / "front.json").unlink()
    monkeypatch.chdir(tmp_path)
    searched, goes_on = [], pipeline.search

    def only_searching(config, out, report):
        searched.append(goes_on(config.model_copy(update={"measure": False}), out, report))
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "search", only_searching)
    for out in (moved, Path("moved"), Path("moved", "..", "moved")):
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(load_pipeline(config_path), out)
    assert (moved / "search" / "archive.jsonl").read_bytes() == b"".join(lines)
    assert [[n.id for n in front.networks] for front in searched] == [
        [n.id for n in outcome.front.networks]
    ] * 3


@pytest.mark.parametrize(
    ("command", "name", "ok", "here", "code", "mend"),
    [
        ("run", "latency<=50ms", True, True, 0, ""),
        ("run", "latency<=50ms", False, True, 1, "raise the budget in "),
        ("run", "latency<=50ms", False, False, 0, ""),  # of another machine nothing is known
        ("run", "parity", False, False, 1, "run the same command again"),
        ("run", "size<=1kB", False, False, 1, "raise that budget, or export in the precision"),
        ("run", "top1>=99.9%", False, True, 1, "lower that budget"),
        ("quickstart", "latency<=50ms", False, True, 1, "higher --budget"),
    ],
)
def test_a_bundle_that_fails_a_check_ends_the_whole_way_with_1(
    command, name, ok, here, code, mend, outcome, config_path, monkeypatch, capsys
):
    checks = (Check(name, ok, "99 ms", anywhere="latency" not in name),)
    verification = replace(outcome.verification, checks=checks, same_machine=here)
    found = replace(outcome, verification=verification)
    monkeypatch.setattr(pipeline, "run_pipeline", lambda *given: found)
    monkeypatch.setattr(
        "sys.argv", ["nat2deploy", *(["run", str(config_path)] if command == "run" else [command])]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    printed = capsys.readouterr()
    assert ("FAILED" in printed.out) is not ok
    assert (f"the bundle fails its check '{name}': 99 ms; " in printed.err) is (code == 1)
    assert mend in printed.err
