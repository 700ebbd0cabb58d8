"""What a report shows of files that are missing, broken, foreign, or full of markup and secrets."""

from __future__ import annotations

import json
import re
import tomllib
import zipfile

import pytest
import tomli_w
from made_runs import (
    TABLE,
    made_exits,
    made_manifest,
    made_tuning,
    write,
    write_pipeline,
    write_search,
)
from pages import Page, page_of

from nat2deploy.errors import UserError
from nat2deploy.report.facts import gather
from nat2deploy.report.page import render
from nat2deploy.report.payload import payload_of
from nat2deploy.report.reading import read_run
from nat2deploy.report.repeat import commands
from nat2deploy.report.write import write_report


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


def test_fields_of_other_versions_are_no_fault(made, tmp_path):
    run = write_search(tmp_path / "run", [{**n, "novel": [1]} for n in made], novel={"a": 1})
    tuning = made_tuning(made[0], novel=1, **made_exits(made[0]))
    write(run / "networks" / made[0]["id"] / "finetune.json", tuning)
    written = write_report(run)
    assert written.problems == ()
    assert len(Page(written.report).data["exits"][0]["states"]) == 3


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
