"""A search that starts from an earlier run."""

from __future__ import annotations

import json
import shutil

import pytest

from nat2deploy.errors import UserError
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.search import search
from nat2deploy.training.evaluation import SubNetworkEvaluator


@pytest.fixture
def earlier(outcome):
    return outcome.out / "search"


@pytest.fixture
def config(earlier):
    """The earlier search's, with another budget, from its weights and archive."""
    held = RunDirectory(earlier).read_config(SearchConfig)
    return held.model_copy(
        update={
            "start": str(earlier),
            "supernet": str(earlier / "supernet.safetensors"),
            "budgets": ("params<=15k", "memory<=1MB"),
            "measure": False,
            "settings": held.settings.model_copy(update={"rounds": 1}),
        }
    )


def archive(run):
    return [json.loads(line) for line in (run / "archive.jsonl").read_text().splitlines()]


def state(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def judged(monkeypatch):
    """The architectures that are really judged."""
    found = []
    call = SubNetworkEvaluator.__call__

    def noting(self, supernet, architecture):
        found.append(architecture.id)
        return call(self, supernet, architecture)

    monkeypatch.setattr(SubNetworkEvaluator, "__call__", noting)
    return found


def test_it_begins_with_the_best_of_the_earlier_archive(config, earlier, tmp_path, judged):
    before = state(earlier)
    front = search(config, tmp_path / "run")
    assert state(earlier) == before
    assert front.networks and all(n.costs["params"] <= 15_000 for n in front.networks)
    old = {line["id"]: line for line in archive(earlier)}  # the last judgement of each
    last = max(line["version"] for line in old.values())
    first = [line for line in archive(tmp_path / "run") if (line["version"], line["role"]) == (0, "archive")]
    assert len(first) == config.settings.archive_size
    taken = [line for line in first if line["id"] in old]
    assert len(taken) >= 3
    known = [line for line in taken if old[line["id"]]["version"] == last]
    assert known and not {line["id"] for line in known} & set(judged[: len(first) - len(known)])
    for line in known:
        assert line["values"]["top1"] == old[line["id"]]["values"]["top1"]
    assert json.loads((tmp_path / "run" / "start.json").read_text())["networks"]


def test_of_a_search_that_adapted_nothing_every_accuracy_holds(config, tmp_path, judged):
    fixed = config.settings.model_copy(update={"adapt_epochs": 0.0, "rounds": 2})
    before = config.model_copy(update={"start": None, "budgets": (), "settings": fixed})
    search(before, tmp_path / "fixed")
    old = {line["id"]: line for line in archive(tmp_path / "fixed")}
    assert {line["version"] for line in old.values()} == {0, 1}
    judged.clear()
    weights = str(tmp_path / "fixed" / "supernet.safetensors")
    search(
        config.model_copy(update={"start": str(tmp_path / "fixed"), "supernet": weights}), tmp_path / "run"
    )
    first = [line for line in archive(tmp_path / "run") if (line["version"], line["role"]) == (0, "archive")]
    taken = [line for line in first if line["id"] in old]
    assert len({old[line["id"]]["version"] for line in taken}) == 2
    assert not {line["id"] for line in taken} & set(judged[: len(first) - len(taken)])
    assert all(line["values"]["top1"] == old[line["id"]]["values"]["top1"] for line in taken)


def test_other_images_and_it_judges_all_again(config, earlier, tmp_path, judged):
    settings = config.settings.model_copy(update={"validation_images": 100})
    search(config.model_copy(update={"settings": settings}), tmp_path / "run")
    first = [line for line in archive(tmp_path / "run") if (line["version"], line["role"]) == (0, "archive")]
    assert {line["id"] for line in first} == set(judged[: len(first)])


def test_it_goes_on_without_the_earlier_archive(config, outcome, tmp_path):
    given = config.model_copy(update={"supernet": str(outcome.out / "supernet.safetensors")})
    whole = tmp_path / "whole"
    search(given, whole)

    def stop(stage, done, total, detail=""):
        if "evaluate" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(given, tmp_path / "run", stop)
    search(given, tmp_path / "run")
    assert archive(tmp_path / "run") == archive(whole)


def test_it_goes_on_when_the_earlier_run_is_gone(config, earlier, tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "earlier"
    shutil.copytree(earlier, moved)
    given = config.model_copy(update={"start": str(moved), "supernet": str(moved / "supernet.safetensors")})
    search(given, whole)

    def stop(stage, done, total, detail=""):
        if "evaluate" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(given, tmp_path / "run", stop)
    shutil.rmtree(moved)
    search(given, tmp_path / "run")
    assert archive(tmp_path / "run") == archive(whole)


def test_runs_that_nothing_can_start_from(config, tmp_path):
    with pytest.raises(UserError, match="no run at"):
        search(config.model_copy(update={"start": str(tmp_path / "none")}), tmp_path / "run")
    begun = tmp_path / "begun"
    RunDirectory(begun).begin(config)
    with pytest.raises(UserError, match="has not judged any network yet"):
        search(config.model_copy(update={"start": str(begun)}), tmp_path / "run")
    other = config.model_copy(update={"supernet": "nano-ee-d-fashion-mnist", "table": None, "budgets": ()})
    other = other.model_copy(update={"space": config.space.model_copy(update={"name": None})})
    with pytest.raises(UserError, match="start from a run of the same space"):
        search(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()
