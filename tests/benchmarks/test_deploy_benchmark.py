"""Our networks against torchvision's, deployed: what the benchmark says of its rows, and that it goes on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import deploy
import deploy_training
import pytest
from deploy_report import compare, draw
from deploy_training import Budget, spaced, spent

from nat2deploy.data.load import load_data
from nat2deploy.deploy import quantised
from nat2deploy.errors import UserError
from nat2deploy.files import read_json, write_json
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.search import search
from nat2deploy.search.settings import SearchSettings

HERE = Path(__file__).parents[2]


def row(network, side, latency_ms, top1):
    return {
        "network": network,
        "side": side,
        "latency_ms": latency_ms,
        "latency_low_ms": 0.9 * latency_ms,
        "latency_high_ms": 1.1 * latency_ms,
        "top1": top1,
        "top1_low": top1 - 0.01,
        "top1_high": top1 + 0.01,
        "images": 10_000,
    }


OURS = [row("small", "ours", 0.05, 0.88), row("middle", "ours", 0.1, 0.91), row("large", "ours", 0.2, 0.92)]


def test_a_peer_is_compared_at_its_latency_and_at_its_accuracy():
    (found,) = compare([*OURS, row("peer", "peers", 0.19, 0.90)], "peers")
    assert (found["ours_at_its_latency"], found["ours_at_its_accuracy"]) == ("middle", "middle")
    assert found["points"] == pytest.approx(1.0)
    assert found["points_interval"] == pytest.approx(
        196 * (2e-5 * 0.9 + 0.91 * 0.09 / 1e4 - 9e-6) ** 0.5, rel=0.01
    )
    assert found["times_faster"] == pytest.approx(1.9)
    assert found["times_faster_interval"] == pytest.approx((1.9 * 0.9 / 1.1, 1.9 * 1.1 / 0.9))
    assert found["as_accurate"] and found["faster"]


def test_what_does_not_hold_is_said_so():
    peers = [
        row("fast", "peers", 0.04, 0.80),
        row("near", "peers", 0.14, 0.905),
        row("good", "peers", 0.5, 0.93),
    ]
    fast, near, good = compare([*OURS, *peers], "peers")
    assert fast["points"] is None and not fast["as_accurate"] and not fast["faster"]  # ours begin at 0.05 ms
    assert near["as_accurate"] and not near["faster"]  # 1.4 times
    assert good["points"] < 0 and good["times_faster"] is None and not good["faster"]


def test_a_peer_that_another_one_beats_is_not_on_their_front():
    peers = [
        row("cheap", "peers", 0.2, 0.90),
        row("dear", "peers", 0.3, 0.89),
        row("best", "peers", 0.4, 0.91),
    ]
    assert [one["on_front"] for one in compare([*OURS, *peers], "peers")] == [True, False, True]


def test_the_picture_is_a_png_that_a_repository_can_hold(tmp_path):
    peers = [row(f"mobilenet_v{index}", "peers", 0.1 * index, 0.85 + index / 100) for index in (1, 2, 3)]
    rows = {engine: [*OURS, *peers] for engine in deploy.ENGINES}
    draw(rows, tmp_path / "fronts.png", "fashion-mnist")
    picture = (tmp_path / "fronts.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 100_000


def test_networks_are_taken_evenly_over_the_front_with_both_ends():
    front = [SimpleNamespace(costs={"latency_ms": 0.01 * 2**index}) for index in range(9)]
    assert spaced(front, 3) == [front[0], front[4], front[8]]
    assert spaced(front, 20) == front


def test_minutes_become_epochs_by_a_speed_that_is_taken_once(tmp_path, monkeypatch):
    data = load_data("digits")
    taken = iter([0.5, 0.2, 0.4, 0.3])
    monkeypatch.setattr(deploy_training, "step_seconds", lambda *given, **options: next(taken))
    trials = {"a": lambda: (None, {}), "b": lambda: (None, {})}
    for _ in range(2):  # the second one reads the file
        budget = Budget(tmp_path / "speed.json", data, 128)
        budget.measure(trials, lambda *where: None)
        assert budget.seconds == {"a": 0.4, "b": 0.2}
    steps = len(data.train) // 128
    assert budget.epochs("a", 1.0) == pytest.approx(60 / (0.4 * steps), abs=0.01)


def test_minutes_of_what_was_killed_are_not_known(tmp_path):
    path = tmp_path / "minutes.json"
    with pytest.raises(KeyboardInterrupt), spent(path, "train"):
        raise KeyboardInterrupt
    with spent(path, "train"):
        assert deploy_training.minutes_of(path, "train") is None  # what a killed one leaves
    assert deploy_training.minutes_of(path, "train") >= 0
    path.write_text(json.dumps({"train": {"minutes": 1.0, "known": False}}))
    with spent(path, "train"):
        pass
    assert deploy_training.minutes_of(path, "train") is None


def test_a_front_without_networks_is_refused():
    with pytest.raises(UserError, match="no network within the budgets"):
        spaced([], 3)


def write_run(path, evaluations, **settings):
    """A search without networks."""
    RunDirectory(path).begin(SearchConfig(supernet="w.safetensors", data="digits", **settings))
    front = {"space": "nano", "data": "digits", "budgets": [], "objectives": [], "rounds": 1}
    held = {"evaluations": evaluations, "complete": True, "hypervolume": None, "networks": []}
    write_json(path / "front.json", front | held)


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    for name, evaluations in (("one", 4), ("two", 5)):
        write_run(tmp_path / name, evaluations)
    out = tmp_path / "out"
    out.mkdir()
    run, minutes = deploy_training.own_run(tmp_path / "one", out, None, None)
    assert (run / "front.json").exists() and minutes is None
    assert deploy_training.own_run(tmp_path / "one", out, None, None) == (run, None)
    with pytest.raises(UserError, match="another run"):
        deploy_training.own_run(tmp_path / "two", out, None, None)


def test_the_table_of_a_pipeline_that_was_moved_is_found_and_a_missing_one_is_told_at_once(tmp_path):
    pipeline, out = tmp_path / "pipeline", tmp_path / "out"
    write_run(pipeline / "search", 4, table="runs/where-it-was/table.json")
    out.mkdir()
    with pytest.raises(UserError, match=r"where-it-was/table\.json"):
        deploy_training.own_run(pipeline / "search", out, None, None)
    assert not (out / "run").exists()
    (pipeline / "config.toml").write_text("")
    shutil.copy(HERE / "latency_tables" / "nano-x86-1-thread.json", pipeline / "table.json")
    run, _ = deploy_training.own_run(pipeline / "search", out, None, None)
    assert RunDirectory(run).read_config(SearchConfig).table == str(pipeline / "table.json")


def trained(name, side, minutes):
    return deploy_training.Trained(name, side, name, 28, 1.0, minutes)


def test_a_second_round_gives_the_peers_what_all_of_ours_took_in_equal_parts():
    held = [trained("a", "ours", 4.0), trained("b", "ours", 6.0), trained("p", "peers", 5.0)]
    assert deploy._longer("total", 90.0, held, 5) == (20.0, "peers, equal time in all")
    assert deploy._longer("30", None, held, 5) == (30.0, "peers, 30 minutes")
    with pytest.raises(UserError, match="give a number of minutes"):
        deploy._longer("total", None, held, 5)
    with pytest.raises(UserError, match="give a number of minutes"):
        deploy._longer("total", 90.0, [trained("a", "ours", None)], 5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("searched") / "run"
    settings = SearchSettings(
        archive_size=4,
        candidates=2,
        rounds=1,
        population=8,
        generations=1,
        surrogates=("ridge",),
        surrogate_folds=2,
        warmup_epochs=0.2,
        adapt_epochs=0,
        recalibration_images=100,
    )
    search(SearchConfig(supernet="nano-ee-d-fashion-mnist", data="digits", settings=settings), out)
    return out


@pytest.mark.slow
def test_it_trains_deploys_and_measures_both_sides_and_goes_on(run, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["deploy.py", "--data", "digits", "--run", str(run), "--networks", "1", "--epochs", "0.1"]
    options = [
        "--peers",
        "squeezenet1_1",
        "--engines",
        "onnxruntime:fp32",
        "onnxruntime:int8-faster",
        "--seconds",
        "0.2",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    # None is faster in 8 bits: after so little training 8 bits cost more than the half point that is allowed.
    monkeypatch.setattr(quantised, "slower_in_8_bits", lambda quantiser, *_, **__: tuple(quantiser.layers))
    deploy.main()
    found = read_json(out / "deploy.json", "benchmark")
    rows = found["rows"]["onnxruntime:fp32"]
    assert {row["side"] for row in rows} == {"ours", "peers"} and not found["refused"]
    assert all(row["images"] == 360 and row["training_minutes"] > 0 and row["macs"] > 1e5 for row in rows)
    top1 = {row["network"]: row["top1"] for row in rows}
    for mixed in found["rows"]["onnxruntime:int8-faster"]:
        bundle = out / "bundles" / "onnxruntime-int8-faster" / mixed["network"]
        made = read_json(bundle / "manifest.json", "manifest")["quantisation"]
        assert len(made["slower_layers"]) == made["layers"] > 0
        assert mixed["top1"] == pytest.approx(top1.pop(mixed["network"]))
    assert not top1
    assert (out / "deploy.png").stat().st_size < 100_000
    assert not (run / "networks").exists()  # the given run is left as it is
    for name in ("finetune", "train_network"):
        monkeypatch.setattr(deploy_training, name, None)  # nothing is left to train
    deploy.main()
    again = read_json(out / "deploy.json", "benchmark")["rows"]["onnxruntime:fp32"]
    kept = ("network", "top1", "epochs", "training_minutes", "macs", "params")
    assert [[one[key] for key in kept] for one in sorted(again, key=lambda one: one["network"])] == [
        [one[key] for key in kept] for one in sorted(rows, key=lambda one: one["network"])
    ]
