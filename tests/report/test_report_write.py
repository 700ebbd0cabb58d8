import json
import tomllib

import pytest
import tomli_w
from made_runs import (
    TABLE,
    made_curves,
    made_history,
    made_latency,
    made_manifest,
    made_tuning,
    write,
    write_archive,
    write_search,
)
from pages import Page, page_of

from nat2deploy.errors import UserError
from nat2deploy.files import read_json, read_toml
from nat2deploy.report.facts import gather
from nat2deploy.report.reading import RunFiles, read_run
from nat2deploy.report.write import write_report


def test_a_whole_pipeline_shows_everything(pipeline, made, tmp_path):
    written = write_report(pipeline, tmp_path / "r.html")
    assert {p.name for p in written.pictures} == {
        f"{name}.png" for name in ("front", "latency", "search", "stages", "finetuning", "exits")
    }
    for picture in written.pictures:
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.parent == tmp_path / "r"
    page = Page(written.report)
    assert written.problems == () and written.finished and written.networks == len(made)
    for network in made:
        assert network["id"] in page.text
    for words in ("98.75 %", "96.00 %", "latency<=0.25ms", "nat2deploy run config.toml", "A Processor"):
        assert words in page.text
    assert page.count("svg") == len(made)
    assert page.count("script") == 3


def test_a_page_is_small_and_asks_the_network_for_nothing(pipeline, tmp_path):
    page = Page(write_report(pipeline, tmp_path / "r.html").report)
    assert len(page.source) < 2_500_000
    addresses = [v for _, held in page.elements for k, v in held.items() if k in ("src", "href", "srcset")]
    assert addresses and all(a.startswith(("#", "data:")) for a in addresses)


def test_the_same_run_gives_the_same_page(pipeline, tmp_path):
    first = write_report(pipeline, tmp_path / "a.html").report.read_bytes()
    assert write_report(pipeline, tmp_path / "b.html").report.read_bytes() == first


def test_a_run_is_only_read_but_for_the_report(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    written = write_report(run)
    assert written.report == run / "report.html"
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert {p: after[p] for p in before} == before
    assert set(after) - set(before) == {written.report, *written.pictures}


def test_a_run_that_has_just_begun_has_a_report(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    for path in run.iterdir():
        if path.name != "config.toml":
            path.unlink()
    page = page_of(run)
    assert "is not finished" in page.text and "No round has been finished" in page.text


def test_a_search_half_way_shows_its_front_so_far(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    (run / "front.json").unlink()
    write(run / "history.json", made_history())
    worse = {**made[0], "id": "dominated0", "top1": 0.1}
    over = {**made[1], "id": "overbudget", "costs": {**made[1]["costs"], "params": 500_000}, "top1": 0.99}
    write_archive(run, [*made, worse, over])
    with (run / "archive.jsonl").open("a") as stream:
        stream.write('{"id": "half a li')
    page = page_of(run)
    shown = [network["id"] for network in page.data["front"]]
    rest = [
        n for n in made
        if not any(
            m is not n and m["top1"] >= n["top1"]
            and all(m["costs"][c] <= n["costs"][c] for c in ("latency_ms", "params"))
            for m in made
        )
    ]  # fmt: skip
    assert shown == [n["id"] for n in rest]
    assert page.data["front"][0]["top1"] == made[0]["top1"]  # with the newest weights
    assert "is not finished" in page.text


FRONT = [  # id, top-1, latency on a and on b, MACs
    ("small", 0.80, 1.0, 9.0, 5e6),
    ("quick-on-b", 0.80, 9.0, 1.0, 6e6),
    ("fewest-macs", 0.70, 9.0, 9.0, 1e6),
    ("largest", 0.90, 9.0, 9.0, 9e6),
]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, {"small", "quick-on-b", "largest"}),
        ({"objectives": ["macs"]}, {"fewest-macs", "small", "largest"}),
        ({"objectives": ["latency@b"]}, {"quick-on-b", "largest"}),
        ({"accuracy_only": True}, {"largest"}),
    ],
)
def test_the_front_so_far_is_of_what_the_search_minimises(made, tmp_path, settings, shown):
    run = write_search(tmp_path / "run", made)
    (run / "front.json").unlink()
    config = {
        **tomllib.loads((run / "config.toml").read_text()),
        "budgets": [],
        "tables": {"a": "a", "b": "b"},
    }
    del config["table"]
    config["settings"] |= settings
    write(run / "config.toml", tomli_w.dumps(config))
    networks = [
        {
            **made[0],
            "id": name,
            "top1": top1,
            "costs": {"latency_ms@a": a, "latency_ms@b": b, "macs": macs, "params": 1e5},
        }
        for name, top1, a, b, macs in FRONT
    ]
    write_archive(run, networks)
    assert {network["id"] for network in page_of(run).data["front"]} == shown


def test_the_budgets_of_a_pipeline_that_has_not_searched_are_of_its_targets(tmp_path):
    tables = {"pi5": "a.json", "here": "b.json"}
    pipeline = {"data": "digits", "budgets": ["latency@pi5<=3ms"], "profile": {"tables": tables}}
    files = RunFiles("run", tmp_path, pipeline=pipeline)
    gather(files)
    assert files.problems == []


@pytest.mark.parametrize("since", [1, 2])
def test_a_front_that_the_search_has_gone_on_since_is_not_shown_for_the_one_so_far(made, tmp_path, since):
    run = write_search(tmp_path / "run", made, complete=False, evaluations=2 * len(made) - since)
    write_archive(run, made)
    stopped = read_json(run / "front.json", "front")
    write(run / "front.json", {**stopped, "networks": stopped["networks"][:1]})
    facts = gather(read_run(run))
    assert (len(facts.rows) == 1) == (since == 1)  # one may be written and not counted
    assert (facts.files.front is None) == (since == 2) and not facts.files.problems


@pytest.mark.parametrize("fixed", [{"reevaluate": False}, {"adapt_epochs": 0.0}, {}])
def test_half_way_what_was_judged_before_counts_where_the_archive_is_not_judged_again(made, tmp_path, fixed):
    run = write_search(tmp_path / "run", made)
    (run / "front.json").unlink()
    write(run / "history.json", made_history())
    write_archive(run, made)
    lines = [json.loads(line) for line in (run / "archive.jsonl").read_text().splitlines()]
    last = max(line["version"] for line in lines)
    early = {**lines[-1], "id": "early00000", "version": last - 1}
    early["values"] = {**early["values"], "top1": 0.999}
    (run / "archive.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [early, *lines]))
    config = read_toml(run / "config.toml", "config")
    config["settings"] = {**config.get("settings", {}), **fixed}
    (run / "config.toml").write_text(tomli_w.dumps(config))
    shown = [network["id"] for network in page_of(run).data["front"]]
    assert ("early00000" in shown) == bool(fixed)


def test_without_a_table_costs_that_need_none_are_shown(made, tmp_path):
    plain = [
        {**n, "measured": None, "costs": {k: n["costs"][k] for k in ("macs", "params", "size_mb")}}
        for n in made
    ]
    run = write_search(tmp_path / "run", plain, budgets=["params<=400k"], note="no latency table was given")
    config = (run / "config.toml").read_text().replace(f'table = "{TABLE}"\n', "")
    write(run / "config.toml", config)
    page = page_of(run)
    assert [axis["metric"] for axis in page.data["axes"]] == ["macs", "params", "size_mb"]
    assert "no latency table" in page.text and page.data["pairs"] == []


def test_several_targets_stand_side_by_side(made, tmp_path):
    def on_two(network):
        costs = {k: v for k, v in network["costs"].items() if k in ("macs", "params")}
        for name, factor in (("pi5", 10.0), ("server", 1.0)):
            costs[f"latency_ms@{name}"] = factor * network["costs"]["latency_ms"]
        return {
            **network,
            "costs": costs,
            "measured": None,
            "measured_on": {"server": made_latency(network["costs"]["latency_ms"])},
        }

    budgets = ["latency@pi5<=2.5ms", "latency.p99@server<=2ms"]
    run = write_search(tmp_path / "run", [on_two(n) for n in made], budgets=budgets)
    text = (run / "config.toml").read_text().replace(f'table = "{TABLE}"\n', "")
    write(
        run / "config.toml", text.replace("[tables]", f'[tables]\npi5 = "{TABLE}"\nserver = "/gone/b.json"')
    )
    page = page_of(run)
    limits = {axis["metric"]: axis["limit"] for axis in page.data["axes"]}
    assert limits["latency_ms@pi5"] == 2.5 and limits["latency_ms@server"] is None
    assert {pair["target"] for pair in page.data["pairs"] if pair["role"] == "front"} == {"server"}
    assert "predicted latency on pi5" in page.text and "--table pi5=" in page.text


def test_budgets_that_nothing_keeps_are_said(tmp_path):
    note = "no network keeps all budgets; the nearest one, 0123456789, breaks 'latency<=0.25ms'"
    page = page_of(write_search(tmp_path / "run", [], note=note))
    assert note in page.text and "No network keeps every budget" in page.text
    assert page.data["front"] == []


def test_a_network_that_measures_over_its_budget_is_marked(made, tmp_path):
    over = {**made[-1], "feasible": False}
    page = page_of(write_search(tmp_path / "run", [*made[:-1], over]))
    remarks = {network["id"]: network["remarks"] for network in page.data["front"]}
    assert "over a budget" in remarks[over["id"]] and "best" in remarks[made[-2]["id"]]


def test_a_space_without_early_exits_has_no_picture_of_them(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    text = (run / "config.toml").read_text().replace('name = "nano-ee-d"', 'name = "nano"')
    write(run / "config.toml", text)
    written = write_report(run)
    assert "exits.png" not in {p.name for p in written.pictures}
    assert "Early exits" not in Page(written.report).text


def test_fine_tuning_that_was_not_kept_is_said(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    write(run / "networks" / made[0]["id"] / "finetune.json", made_tuning(made[0], kept=False))
    page = page_of(run)
    assert "validated worse" in page.text and page.data["curves"] == []


def test_each_epoch_of_fine_tuning_is_drawn_from_what_there_was_before_it(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    tuning = made_tuning(made[0], **made_curves((0.96, 0.97), second_phase=1))
    write(run / "networks" / made[0]["id"] / "finetune.json", tuning)
    written = write_report(run)
    (curve,) = Page(written.report).data["curves"]
    assert [(e["phase"], e["epoch"], e["top1"]) for e in curve["epochs"]] == [
        *((1, 0, 0.95), (1, 1, 0.96), (1, 2, 0.97), (2, 1, None)),
    ]
    assert [e["training_loss"] for e in curve["epochs"]] == [None, 0.9, 0.45, 0.8]
    assert "finetuning.png" in {picture.name for picture in written.pictures}


def test_older_versions_accuracies_of_each_epoch_are_drawn_alone(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    write(
        run / "networks" / made[0]["id"] / "finetune.json",
        made_tuning(made[0], curve=[0.96, 0.97], validation_before=None),
    )
    written = write_report(run)
    (curve,) = Page(written.report).data["curves"]
    assert [(e["epoch"], e["top1"], e["loss"], e["training_loss"]) for e in curve["epochs"]] == [
        *((1, 0.96, None, None), (2, 0.97, None, None)),
    ]
    assert "finetuning.png" in {picture.name for picture in written.pictures}


def test_a_bundle_elsewhere_can_be_shown(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    write(tmp_path / "b" / "manifest.json", made_manifest(made[2]))
    page = page_of(run, bundle=tmp_path / "b")
    assert f"nat2deploy export again --network {made[2]['id']}" in page.text
    assert "in the bundle" in next(n for n in page.data["front"] if n["id"] == made[2]["id"])["remarks"]
    with pytest.raises(UserError, match="no manifest at"):
        write_report(run, bundle=tmp_path)
    with pytest.raises(UserError, match="no bundle at"):
        write_report(run, bundle=tmp_path / "none.zip")


def test_no_run_and_a_wrong_ending_are_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"no run at .*nat2deploy search"):
        write_report(tmp_path)
    run = write_search(tmp_path / "run", made)
    with pytest.raises(UserError, match=r"\.html file"):
        write_report(run, tmp_path / "report.pdf")
    assert not (tmp_path / "report").exists()


def test_a_folder_of_something_else_is_no_run(tmp_path):
    (tmp_path / "config.toml").write_text('title = "A page"\n')
    with pytest.raises(UserError, match="is no run's, it names no data; name the folder of a run"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_pictures_never_go_among_other_things(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    first = write_report(run, tmp_path / "r.html")
    (tmp_path / "r" / ".DS_Store").write_text("a file manager's")
    assert write_report(run, tmp_path / "r.html").pictures == first.pictures  # its own are replaced
    for name in ("manifest.json", "config.toml", "holiday.png"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_text("dear")
        with pytest.raises(UserError, match=f"other, which holds {name}; give --out another name"):
            write_report(run, tmp_path / "other.html")
        assert [path.name for path in (tmp_path / "other").iterdir()] == [name]
        (tmp_path / "other" / name).unlink()
    (tmp_path / "file").write_text("dear")
    with pytest.raises(UserError, match="give --out another name"):
        write_report(run, tmp_path / "file.html")
    assert not (tmp_path / "other.html").exists() and not (tmp_path / "file.html").exists()
