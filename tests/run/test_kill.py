"""SIGKILL in the middle of a search: it goes on, and loses no finished evaluation."""

import signal
import sys
import time

import pytest
import tomli_w
from programs import Program

from nat2deploy.errors import UserError
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import load_front
from nat2deploy.run.search import search


def _words(outcome, out):
    config = RunDirectory(outcome.out / "search").read_config(SearchConfig)
    settings = out.parent / "settings.toml"
    settings.write_text(tomli_w.dumps(config.settings.model_dump(mode="json", exclude_none=True)))
    budgets = [word for budget in config.budgets for word in ("--budget", budget)]
    return [
        "search", "--space", config.space.name, "--supernet", config.supernet,
        "--data", config.data, "--table", config.table, *budgets, "--settings", str(settings), "--seed", "3",
        "--allow-uncertified", "--out", str(out), "--json",
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_search_goes_on_and_ends_with_the_same_archive(outcome, command, tmp_path):
    """Killed in the first archive, in the first candidates and in the second archive, one after the other."""
    out = tmp_path / "search"
    words = _words(outcome, out)
    archive = out / "archive.jsonl"
    whole = b""
    for lines in (3, 12, 20):
        with Program("-m", "nat2deploy", *words, folder=tmp_path) as program:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and program.poll() is None:
                if archive.exists() and archive.read_bytes().count(b"\n") >= lines:
                    program.kill()
                    break
                time.sleep(0.005)
            assert program.wait() == -signal.SIGKILL, "the search ended before it could be killed"
        kept = archive.read_bytes()
        assert kept.startswith(whole)
        whole = kept[: kept.rfind(b"\n") + 1]
        assert whole.count(b"\n") >= lines
    code, _, error = command(*words)
    assert code == 0, error
    finished = archive.read_bytes()
    assert finished.startswith(whole)
    undisturbed = outcome.out / "search" / "archive.jsonl"  # of the same settings
    assert finished == undisturbed.read_bytes()


def test_a_search_that_nobody_could_judge_has_not_begun(outcome, tmp_path, monkeypatch):
    held = RunDirectory(outcome.out / "search")
    config, out = held.read_config(SearchConfig), tmp_path / "search"
    with monkeypatch.context() as patch, pytest.raises(UserError, match="install it with pip"):
        patch.setitem(sys.modules, "ray", None)
        search(config.model_copy(update={"workers": "ray"}), out)
    assert not (out / "config.toml").exists()
    RunDirectory(out).begin(config.model_copy(update={"budgets": ("params<=1M",)}))  # may begin otherwise
    kept = {path.name: path.read_bytes() for path in held.path.iterdir() if path.is_file()}
    with monkeypatch.context() as patch, pytest.raises(UserError, match="install it with pip"):
        patch.setitem(sys.modules, "ray", None)
        search(config.model_copy(update={"workers": "ray"}), held.path)
    assert {path.name: path.read_bytes() for path in held.path.iterdir() if path.is_file()} == kept


def test_interrupted_search_leaves_a_front(outcome, tmp_path):
    config = RunDirectory(outcome.out / "search").read_config(SearchConfig)

    def stop(stage, done, total, detail=""):
        if stage.startswith("round 1") and "evaluate" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(config, tmp_path / "run", stop)
    front = load_front(tmp_path / "run" / "front.json")
    assert not front.complete and front.networks
