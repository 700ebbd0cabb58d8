"""Runs of versions that knew fewer costs and settings go on."""

from __future__ import annotations

import json
import shutil

import tomli_w

from nat2deploy.files import read_toml
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import load_front
from nat2deploy.run.search import search


def test_a_run_that_knew_no_memory_goes_on_with_the_same_archive(outcome, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(outcome.out / "search", run)
    config = read_toml(run / "config.toml", "config")
    del config["tables"]
    (run / "config.toml").write_text(tomli_w.dumps(config))
    lines = [json.loads(line) for line in (run / "archive.jsonl").read_text().splitlines()]
    for line in lines:
        del line["values"]["memory_mb"]
    older = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "archive.jsonl").write_text(older)
    (run / "front.json").unlink()
    front = search(RunDirectory(run).read_config(SearchConfig), run)
    assert (run / "archive.jsonl").read_text() == older
    before = load_front(outcome.out / "search" / "front.json")
    assert [(n.id, n.top1, n.costs) for n in front.networks] == [
        (n.id, n.top1, n.costs) for n in before.networks
    ]
