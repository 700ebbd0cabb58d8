"""The benchmark of a search's own time, on a short search."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_all_of_the_time_is_some_parts():
    command = [sys.executable, str(BENCHMARKS / "search_overhead.py"), "nano-ee-d-fashion-mnist", "--json"]
    short = "--data digits --budget macs<=4M --rounds 1 --archive-size 4 --candidates 2 --warmup-epochs 0.1"
    done = subprocess.run(
        [*command, *short.split(), "--adapt-epochs", "0.1"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    parts = found["parts"]
    assert 4 + 2 <= found["evaluations"] <= 4 + 2 + 4  # exits that others pass are none
    assert min(parts.values()) > 0 and sum(parts.values()) == pytest.approx(found["seconds"])
    work = parts["judge sub-networks"] + parts["train the super-network"]
    assert found["overhead"] == pytest.approx(1 - work / found["seconds"])
