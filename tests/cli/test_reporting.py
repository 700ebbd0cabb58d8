"""The commands report and dashboard as a user runs them."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import tomli_w

import nat2deploy as package

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}


def start(*arguments):
    command = [sys.executable, "-m", "nat2deploy", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


@pytest.fixture
def run(tmp_path):
    """A search that has just begun."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"supernet": "w.safetensors", "data": "digits", "budgets": ["macs<=1M"]}
    (folder / "config.toml").write_text(tomli_w.dumps(config))
    return folder


def test_report_says_where_it_is(command, run, tmp_path):
    code, out, error = command("report", run, "--out", tmp_path / "out" / "r.html")
    assert (code, error) == (0, "")
    assert str(tmp_path / "out" / "r.html") in out and "not finished" in out
    written = json.loads(command("report", run, "--json")[1])
    assert written["report"] == str(run / "report.html") and written["networks"] == 0
    assert "<title>run" in (run / "report.html").read_text()


@pytest.mark.parametrize("verb", ["report", "dashboard"])
def test_no_run_is_one_line_and_code_2(command, verb, tmp_path):
    code, out, error = command(verb, tmp_path)
    assert code == 2 and out == ""
    assert error.count("\n") == 1 and "no run at" in error


def test_dashboard_serves_until_it_is_interrupted(run):
    process = start("dashboard", run, "--port", "0")
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert "is not finished" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert process.returncode == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
