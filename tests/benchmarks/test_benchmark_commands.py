"""Every benchmark's command starts: what it imports is there, and it says what it takes."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Parts of the others, without a command.
PARTS = {
    *("deploy_bundles", "deploy_report", "deploy_training", "peers"),
    *("search_methods", "search_report", "search_runs"),
}
COMMANDS = sorted(path for path in BENCHMARKS.glob("*.py") if path.stem not in PARTS)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_takes(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_a_part_has_no_command():
    assert all("__main__" not in (BENCHMARKS / f"{name}.py").read_text() for name in PARTS)
