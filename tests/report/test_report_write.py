import json
import re
import tomllib
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tomli_w
from made_runs import (
    TABLE,
    made_curves,
    made_exits,
    made_history,
    made_latency,
    made_manifest,
    made_tuning,
    write,
    write_archive,
    write_pipeline,
    write_search,
)

from nat2deploy.errors import UserError
from nat2deploy.files import read_json, read_toml
from nat2deploy.report.facts import gather
from nat2deploy.report.page import render
from nat2deploy.report.payload import payload_of
from nat2deploy.report.reading import read_run
from nat2deploy.report.repeat import commands
from nat2deploy.report.write import write_report


class Page(HTMLParser):
    """What a browser would make of a page: its text, and its elements with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self._inside: list[str] = []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())
        self.data = json.loads(self.raw["data"])

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside = [tag, dict(attributes).get("id") or ""]

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = []

    def handle_data(self, data):
        if not self._inside:
            self.words.append(data)
        else:
            self.raw = {**getattr(self, "raw", {}), self._inside[1]: data}

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


def page_of(run, **more):
    return Page(write_report(run, **more).report)


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
    page = page_of(pipeline, out=tmp_path / "r.html")
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


@pytest.mark.parametrize("left_out", ["front.json", "history.json", "archive.jsonl"])
def test_any_file_may_be_missing(made, tmp_path, left_out):
    run = write_search(tmp_path / "run", made)
    (run / left_out).unlink()
    written = write_report(run)
    assert written.problems == ()
    assert written.finished == (left_out != "front.json")


BROKEN = ["front.json", "history.json", "networks/x/finetune.json", "supernet.safetensors"]


@pytest.mark.parametrize("broken", BROKEN)
def test_without_a_broken_file_there_is_a_report(made, tmp_path, broken):
    run = write_search(tmp_path / "run", made)
    write(run / broken, "{")
    written = write_report(run)
    assert len(written.problems) == 1
    assert written.problems[0] in Page(written.report).text


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"id": 3}', "\x00\xff", ""])
def test_a_broken_file_is_named_and_left_out(made, tmp_path, broken, content):
    """What is left, and so each picture of it, is the same whatever the file holds."""
    run = write_search(tmp_path / "run", made)
    write(run / broken, "{")
    left = payload_of(gather(read_run(run)))
    write(run / broken, content)
    facts = gather(read_run(run))
    assert payload_of(facts) == left
    (problem,) = facts.files.problems
    assert broken.rpartition("/")[2] in problem
    write(tmp_path / "r.html", render(facts, left, {}))
    assert problem in Page(tmp_path / "r.html").text


def problems_of(run):
    """What is read of a run for its report, and what of it could not be."""
    facts = gather(read_run(run))
    payload_of(facts)
    commands(facts.files)
    return facts.files.problems


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("tables", v) for v in ("x", 3, [["a"]])),
        *((name, 3) for name in ("space", "settings", "budgets", "table", "supernet", "data", "start")),
    ],
)
def test_a_setting_of_another_kind_is_named_and_left_out(made, tmp_path, key, value):
    run = write_search(tmp_path / "run", made)
    config = tomllib.loads((run / "config.toml").read_text())
    write(run / "config.toml", tomli_w.dumps({**config, key: value}))
    assert problems_of(run) == [f"run/config.toml: {key} cannot be read"]


def test_a_pipelines_tables_of_another_kind_are_left_out(made, tmp_path):
    run = write_pipeline(tmp_path / "whole", made)
    config = tomllib.loads((run / "config.toml").read_text())
    write(run / "config.toml", tomli_w.dumps({**config, "profile": {"tables": "x" * 5000}}))
    assert problems_of(run) == ["whole/config.toml: tables cannot be read"]


def test_a_tables_name_may_be_too_long_for_a_file(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    config = tomllib.loads((run / "config.toml").read_text())
    write(run / "config.toml", tomli_w.dumps({**config, "table": "x" * 5000}))
    assert problems_of(run) == []


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


def test_fields_of_other_versions_are_no_fault(made, tmp_path):
    run = write_search(tmp_path / "run", [{**n, "novel": [1]} for n in made], novel={"a": 1})
    tuning = made_tuning(made[0], novel=1, **made_exits(made[0]))
    write(run / "networks" / made[0]["id"] / "finetune.json", tuning)
    written = write_report(run)
    assert written.problems == ()
    assert len(Page(written.report).data["exits"][0]["states"]) == 3


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


@pytest.mark.parametrize(("place", "value"), [(6, 1), (8, 99)], ids=["password", "method"])
def test_a_zip_that_cannot_be_unpacked_is_no_bundle(made, tmp_path, place, value):
    run, bundle = write_search(tmp_path / "run", made), tmp_path / "bundle.zip"
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("manifest.json", "{}")
    content = bytearray(bundle.read_bytes())
    content[place] = content[content.index(b"PK\x01\x02") + place + 2] = value
    bundle.write_bytes(content)
    with pytest.raises(UserError, match="no bundle at"):
        read_run(run, bundle)


@pytest.mark.parametrize(
    ("name", "content", "left_out"),
    [
        ("history.json", [{"round": 0, "best": {"top1": "high"}}], "history.json cannot be read"),
        ("history.json", [{"round": 0, "best": {"top1": [1]}}], "history.json cannot be read"),
        ("timings.json", '{"train": Infinity}', "timings.json cannot be read"),
        ("timings.json", '{"train": NaN}', "timings.json cannot be read"),
    ],
)
def test_numbers_that_are_none_are_left_out(made, tmp_path, name, content, left_out):
    run = write_pipeline(tmp_path / "run", made)
    write(run / name if name == "timings.json" else run / "search" / name, content)
    facts = gather(read_run(run))
    assert len(facts.files.problems) == 1 and left_out in facts.files.problems[0]
    assert render(facts, payload_of(facts), {})


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


@pytest.fixture(scope="module")
def clean(made, tmp_path_factory):
    """The page of a run whose files hold no markup."""
    return page_of(write_search(tmp_path_factory.mktemp("clean") / "run", made))


NASTY = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "a & b < c",
    "<!--",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_markup_from_files_stays_text(made, clean, tmp_path, nasty):
    networks = [{**made[0], "id": nasty}, *made[1:]]
    run = write_search(tmp_path / "run", networks, data=nasty, note=nasty, space=nasty)
    config = (run / "config.toml").read_text().replace('data = "digits"', f"data = {json.dumps(nasty)}")
    write(run / "config.toml", config)
    write(run / "networks" / "x" / "finetune.json", made_tuning(networks[0], **made_exits(networks[0])))
    manifest = made_manifest(networks[0], output={"labels": [nasty, "b"]}, files={nasty: "0" * 64})
    write(tmp_path / "b" / "manifest.json", manifest)
    page = page_of(run, bundle=tmp_path / "b")
    assert page.count("script") == clean.count("script") == 3
    assert not any("onerror" in held for _, held in page.elements)
    assert nasty in page.text.replace("…/", "/") or "/" in nasty
    assert page.data["front"][0]["id"] == nasty


def test_folders_users_and_secrets_do_not_get_into_a_report(made, tmp_path):
    folder = "/home/someone/secret place"
    run = write_search(
        tmp_path / "run",
        made,
        note=f"see {folder.replace(' ', '-')}/x.json",
        data=f"imagefolder:{folder}/img",
    )
    text = (run / "config.toml").read_text()
    text = text.replace('data = "digits"', f'data = "imagefolder:{folder}/img"')
    text = text.replace(f'table = "{TABLE}"', f'table = "{folder}/t.json"')
    text = text.replace(
        'preset = "ours"', f'preset = "ours"\ntoken = "hunter2"\nstart = "{folder}/w.safetensors"'
    )
    write(run / "config.toml", text)
    page = page_of(run)
    for private in ("someone", "secret", "hunter2", str(tmp_path)):
        assert private not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page.source)
    assert "imagefolder:…/img" in page.text and "…/w.safetensors" in page.text
