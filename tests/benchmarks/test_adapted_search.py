"""Whole searches at equal time: run for real, scored on test images, and kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import adapted_search
import numpy as np
import pytest

from nat2deploy.search.settings import SearchSettings


@pytest.mark.parametrize("method", ["nat", "nat2"])
def test_the_authors_sizes_are_cut_alike_and_policies_stay(method):
    whole = SearchSettings(preset=method)
    cut = SearchSettings(**adapted_search.settings_of(method, 0.4, {"rounds": 5}))
    for name in ("archive_size", "candidates", "top"):
        assert getattr(cut, name) == round(0.4 * getattr(whole, name))
    changed = {"archive_size", "candidates", "top", "rounds", "distribution"}
    assert cut.model_dump(exclude=changed) == whole.model_dump(exclude=changed)


def test_ours_are_the_defaults():
    given = SearchSettings(**adapted_search.settings_of("ours", 0.4, {"rounds": 5}))
    assert given == SearchSettings(rounds=5)


def test_hypervolume_is_a_share_of_the_box_of_all_fronts():
    def score(*points):
        networks = [{"latency_ms": ms, "validation": 0.0, "test": test} for test, ms in points]
        return {"networks": networks, "evaluations": 9, "version": 1, "seconds": 2.0}

    found = adapted_search.figures_of(
        {"a": [score((0.9, 0.1))], "b": [score((0.5, 0.1), (0.9, 0.2))], "c": [score((0.5, 0.2))]}, 0.3
    )
    assert found["a"]["hypervolume"] == [pytest.approx(1.0)]
    assert found["b"]["hypervolume"] == [pytest.approx(0.5)]
    assert found["c"]["hypervolume"] == [pytest.approx(0.0)]
    assert found["b"]["best_test"] == [pytest.approx(0.9)]


def test_time_is_what_the_process_computed():
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 60
        while adapted_search.spent_s(busy.pid, 0.0) < 0.5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert adapted_search.spent_s(waiting.pid, 0.0) < 0.5
    finally:
        waiting.kill()
        busy.kill()
        waiting.wait()
        busy.wait()


def test_without_the_systems_word_it_is_wall_time():
    nobody = -1
    assert adapted_search.spent_s(nobody, time.monotonic() - 50) == pytest.approx(50, abs=20)


def test_a_search_for_real(tmp_path, monkeypatch, capsys):
    given = ["adapted_search.py", "--out", str(tmp_path), "--data", "digits", "--minutes", "10"]
    given += ["--seeds", "1", "--share", "0.05", "--rounds", "1", "--adapt-epochs", "0.1"]
    given += ["--warmup-epochs", "0.1"]
    given += ["--methods", "ours", "--validation-images", "100", "--json"]
    given += ["--recalibration-images", "50"]
    monkeypatch.setattr("sys.argv", given)
    sizes = {"archive_size": 12, "candidates": 4, "population": 16, "generations": 2, "surrogate_folds": 2}
    whole = adapted_search.settings_of
    monkeypatch.setattr(adapted_search, "settings_of", lambda *given: {**whole(*given), **sizes})
    adapted_search.main()
    found = json.loads(capsys.readouterr().out)["ours"]
    assert found["adaptations"] == [1] and found["evaluations"][0] >= 16
    done = tmp_path / "ours-0" / "done.json"
    networks = json.loads(done.read_text())["networks"]
    assert found["best_test"] == [pytest.approx(max(n["test"] for n in networks), abs=1e-12)]
    assert all(n["latency_ms"] <= 0.25 and 0 < n["test"] <= 1 for n in networks)
    assert 0 < np.mean(found["hypervolume"]) <= 1
    before = done.stat().st_mtime_ns
    adapted_search.main()  # a finished run is kept
    assert done.stat().st_mtime_ns == before
