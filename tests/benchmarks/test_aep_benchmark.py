"""AEP against plain fine-tuning: what the benchmark says of its rows."""

from __future__ import annotations

import sys

import aep
import pytest

from nat2deploy.files import read_json


def row(network, method, top1, macs):
    return {"network": network, "method": method, "top1": top1, "macs": macs, "params": 10}


def test_a_summary_compares_each_network_with_its_plain_tuning():
    rows = [
        *(row("a", method, 0.90, 100) for method in ("inherited", "plain", "AEP, cost")),
        row("a", "AEP, accuracy", 0.92, 200),
        *(row("b", method, 0.80, 100) for method in ("inherited", "plain", "AEP, cost")),
        row("b", "AEP, accuracy", 0.80, 50),
    ]
    found = aep.summarise(rows)["AEP, accuracy"]
    assert found["points"] == pytest.approx(1.0)
    assert found["interval"] == pytest.approx(12.706, rel=1e-3)  # one degree of freedom
    assert (found["better"], found["networks"]) == (1, 2)
    assert found["macs"] == pytest.approx(1.0) and found["params"] == 1.0
    assert "measured_ms" not in found


@pytest.mark.slow
def test_it_runs_and_goes_on_from_its_file(monkeypatch, tmp_path, capsys):
    out = tmp_path / "aep.json"
    command = ["aep.py", "nano-ee-d-fashion-mnist", "--data", "digits", "--networks", "2", "--epochs", "0.5"]
    monkeypatch.setattr(sys, "argv", [*command, "--images", "200", "--no-measure", "--json", str(out)])
    aep.main()
    found = read_json(out, "benchmark")
    assert [r["method"] for r in found["rows"]] == [*aep.METHODS] * 2
    assert all(r["low"] <= r["top1"] <= r["high"] for r in found["rows"])
    assert found["summary"]["plain"]["points"] == 0.0
    monkeypatch.setattr(aep._Bench, "compare", None)  # nothing is left to compare
    aep.main()
    assert read_json(out, "benchmark") == found
