"""SIGKILL in the middle of a search: it goes on, and loses no finished evaluation."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tomli_w

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


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_search_goes_on_and_ends_with_the_same_archive(outcome, command, tmp_path):
    """Killed in the first archive, in the first candidates and in the second archive, one after the other."""
    out = tmp_path / "search"
    words = _words(outcome, out)
    archive = out / "archive.jsonl"
    whole = b""
    for lines in (3, 12, 20):
        process = subprocess.Popen(
            [sys.executable, "-m", "nat2deploy", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if archive.exists() and archive.read_bytes().count(b"\n") >= lines:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.005)
        assert process.wait(timeout=60) == -signal.SIGKILL, "the search ended before it could be killed"
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


def test_interrupted_search_leaves_a_front(outcome, tmp_path):
    config = RunDirectory(outcome.out / "search").read_config(SearchConfig)

    def stop(stage, done, total, detail=""):
        if stage.startswith("round 1") and "evaluate" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(config, tmp_path / "run", stop)
    front = load_front(tmp_path / "run" / "front.json")
    assert not front.complete and front.networks
