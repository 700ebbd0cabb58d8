"""A finished search's front: measured once, written before, and there whatever measuring comes to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.run import measure_front as measuring
from nat2deploy.run import search as search_module
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import load_front
from nat2deploy.run.search import search


@pytest.fixture
def finished(outcome, tmp_path) -> Path:
    """A copy of a finished search, whose front is measured."""
    shutil.copy(outcome.out / "search" / "front.json", tmp_path / "whole.json")
    return Path(shutil.copytree(outcome.out / "search", tmp_path / "search"))


def stored(run: Path) -> SearchConfig:
    return RunDirectory(run).read_config(SearchConfig)


def test_what_was_measured_is_not_measured_again(finished, monkeypatch):
    before = load_front(finished / "front.json")
    assert all(network.measured is not None for network in before.networks)
    monkeypatch.setattr(search_module, "measure_front", lambda *_: pytest.fail("it measures again"))
    assert search(stored(finished), finished) == before
    assert search(stored(finished).model_copy(update={"measure": False}), finished) == before


def test_another_front_is_measured(finished):
    path = finished / "front.json"
    before = load_front(path)
    names = [network.id for network in before.networks]
    assert set(measuring.measured_before(path, names, [""])[""]) == set(names)
    assert measuring.measured_before(path, names[1:], [""]) == {}
    assert measuring.measured_before(path, names, ["pi5"]) == {}
    search_module.save_front(before.model_copy(update={"complete": False}), path)
    assert measuring.measured_before(path, names, [""]) == {}
    path.write_text("{}")
    assert measuring.measured_before(path, names, [""]) == {}


def test_of_several_targets_what_was_measured_stays(finished, tmp_path, monkeypatch):
    """One is this machine, the other one is not, and may never be measured here."""
    (finished / "front.json").unlink()
    config = stored(finished)
    table = load_table(Path(config.table))
    board = table.fingerprint.model_copy(update={"cpu": "A board"})
    save_table(table.model_copy(update={"fingerprint": board}), tmp_path / "board.json")
    tables = {"here": config.table, "board": str(tmp_path / "board.json")}
    inputs = search_module.read_inputs(
        config.model_copy(update={"table": None, "tables": tables, "budgets": ()}),
        (str(finished / "supernet.safetensors"),),
    )
    network = load_front(finished.parent / "whole.json").networks[0]
    measured = {"here": {network.id: network.measured}}
    monkeypatch.setattr(measuring, "measure_modules", lambda *_, **__: pytest.fail("it measures again"))
    found, note = measuring.measure_front([], inputs.tables, None, 0, lambda *_: None, measured)
    assert found == measured
    assert note == "this machine is not that of board, so nothing was measured for it here"


def test_a_search_that_did_not_measure_may_measure_later(finished):
    (finished / "front.json").unlink()
    front = search(stored(finished).model_copy(update={"measure": False}), finished)
    assert front.note == "measuring was switched off"
    assert all(network.measured is None for network in front.networks)
    again = search(stored(finished), finished)
    assert again.note == "" and all(network.measured is not None for network in again.networks)


def test_a_target_that_cannot_run_now_is_a_note(finished, monkeypatch):
    (finished / "front.json").unlink()

    def refused(*_, **__):
        raise UserError("target has 2 threads, only 1 core may be used; free one")

    monkeypatch.setattr(measuring, "measure_modules", refused)
    front = search(stored(finished), finished)
    assert front.note == "nothing was measured: target has 2 threads, only 1 core may be used; free one"
    assert front.complete and front.best is not None
    assert load_front(finished / "front.json") == front


def test_an_interruption_of_a_repeated_search_keeps_its_measured_front(finished):
    before = (finished / "front.json").read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(stored(finished), finished, stop)
    assert (finished / "front.json").read_bytes() == before
    (finished / "front.json").write_text("{}")  # but not one that is no front
    with pytest.raises(KeyboardInterrupt):
        search(stored(finished), finished, stop)
    assert not load_front(finished / "front.json").complete


def test_an_interruption_while_measuring_leaves_the_front(finished, monkeypatch):
    (finished / "front.json").unlink()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(measuring, "measure_modules", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(stored(finished), finished)
    front = load_front(finished / "front.json")
    assert front.complete and "repeat the command" in front.note
    assert all(network.measured is None for network in front.networks)
    assert all(network.measured is not None for network in search(stored(finished), finished).networks)
