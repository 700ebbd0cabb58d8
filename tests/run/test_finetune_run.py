"""Fine-tuning networks of a run: AEP with costs and budgets, side by side, and into a bundle."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest
from early_run import QUICK, make_run

from nat2deploy.cli.app import app
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.errors import UserError
from nat2deploy.report.write import write_report
from nat2deploy.run import finetune as finetune_run
from nat2deploy.run import finetune_network, finetune_workers
from nat2deploy.run.config import ExportConfig
from nat2deploy.run.export import export
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.front import load_front, save_front
from nat2deploy.run.networks import open_network
from nat2deploy.space.lowering import lower, total_macs, total_params
from nat2deploy.training.evaluation import judge


@pytest.fixture(scope="module")
def aep_run(tmp_path_factory):
    """A run whose front was tuned by AEP without pruning; treat it as read-only."""
    run = make_run(tmp_path_factory.mktemp("aep"))
    config = FinetuneConfig(method="aep", network="all", prune=("none",), exit_weights="mix", **QUICK)
    return run, finetune(run, config)


def test_every_network_of_the_front_gets_all_its_earlier_exits(aep_run):
    _, reports = aep_run
    assert [report.architecture["exits"] for report in reports] == [[1, 2], [1, 2, 3]]
    assert [report.kept for report in reports] == [True, True]
    assert reports[1].exit_weights == pytest.approx((1 / 6, 2 / 6, 3 / 6))
    for report in reports:
        assert report.validation_before.low <= report.validation_before.top1 <= report.validation_before.high
        assert report.test.low < report.test.top1 < report.test.high
        assert report.validation_after.top1 > report.validation_before.top1


def test_the_stored_network_is_what_the_report_says(aep_run):
    run, reports = aep_run
    for report in reports:
        found, data = open_network(run, report.id)
        architecture = found.info.choice
        assert architecture.to_json() == report.architecture
        assert found.network.exit_weights.tolist() == pytest.approx(report.exit_weights)
        assert judge(found.network, data, data.test, 16).top1 == report.test.top1
        signatures = lower(found.info.space, architecture, data.classes)
        assert report.costs["macs"] == total_macs(signatures)
        assert report.costs["params"] == total_params(signatures)
        assert report.costs["params"] == sum(p.numel() for p in found.network.parameters())
        single = next(s for s in report.states if s.exits == (architecture.exits[-1],))
        assert report.costs["latency_ms"] > single.costs["latency_ms"]


def test_several_exits_go_into_a_verified_bundle(aep_run, tmp_path):
    run, reports = aep_run
    manifest = export(run, ExportConfig(network=reports[1].id), tmp_path / "bundle")
    found, _ = open_network(run, reports[1].id)
    assert manifest.network == found.info.choice.id != reports[1].id
    assert manifest.front_network == reports[1].id
    assert manifest.evidence.parity.top1_agreement == 1.0
    assert manifest.evidence.accuracy.top1 == pytest.approx(reports[1].test.top1)
    assert manifest.costs.latency_ms == pytest.approx(reports[1].costs["latency_ms"])
    assert verify_bundle(tmp_path / "bundle", seed=0, time_limit_s=0.5).ok


def test_done_networks_are_not_tuned_again(aep_run):
    run, reports = aep_run
    before = (run / "networks" / reports[0].id / "network.safetensors").stat().st_mtime_ns
    config = FinetuneConfig(
        method="aep", network=reports[0].id, prune=("none",), exit_weights="mix", workers=3, **QUICK
    )
    assert finetune(run, config) == [reports[0]]
    assert (run / "networks" / reports[0].id / "network.safetensors").stat().st_mtime_ns == before
    assert not list(run.rglob(".phase*"))


def test_pruning_keeps_the_budgets(tmp_path):
    probe = make_run(tmp_path)
    whole = load_front(probe / "front.json").networks[1]
    limit = whole.costs["params"] * 1.01  # no room for all exits, but for the network as it was
    (tmp_path / "limited").mkdir()
    run = make_run(tmp_path / "limited", budgets=(f"params<={limit:.0f}",))
    config = FinetuneConfig(method="aep", network=whole.id, **QUICK)
    (report,) = finetune(run, config)
    assert report.feasible and report.costs["params"] <= limit
    assert {state.exits for state in report.states if not state.feasible} >= {(1, 2, 3)}
    (kept,) = (state for state in report.states if state.kept)
    allowed = [state for state in report.states if state.feasible]
    assert kept.top1 == max(state.top1 for state in allowed) == report.validation_after.top1
    assert list(kept.exits) == report.architecture.get("exits", [len(report.architecture["d"])])


def test_plain_fine_tuning_keeps_and_draws_what_each_epoch_did(tmp_path, capsys):
    run = make_run(tmp_path)
    options = ["--epochs", "2.5", "--batch-size", "64", "--no-distil", "--json"]
    app(["finetune", str(run), *options], standalone_mode=False)
    (report,) = json.loads(capsys.readouterr().out)
    *whole, last = (row["epoch"] for row in report["history"])
    assert whole == [1.0, 2.0] and {row["phase"] for row in report["history"]} == {1}
    assert last == pytest.approx(2.5, abs=0.05)  # whole steps
    for row in report["history"]:
        assert 0 <= row["top1"] <= 1 and row["loss"] > 0 and row["training_loss"] > 0
    rates = [row["learning_rate"] for row in report["history"]]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.001
    assert report["history"][-1]["top1"] == report["curve"][-1]
    stored = json.loads((run / "networks" / report["id"] / "finetune.json").read_text())
    assert stored["history"] == report["history"]
    assert "finetuning.png" in {picture.name for picture in write_report(run).pictures}


def test_an_option_that_would_do_nothing_is_one_line(command, tmp_path):
    run = make_run(tmp_path)
    code, _, error = command("finetune", run, "--patience", 30)
    assert code == 2 and "--patience is for --phases 2 alone; add that, or leave it out" in error
    assert not list(run.glob("networks/*"))


def test_what_an_older_version_tuned_is_kept_and_reported(tmp_path):
    run = make_run(tmp_path)
    (report,) = finetune(run, FinetuneConfig(**QUICK))
    path = run / "networks" / report.id / "finetune.json"
    held = json.loads(path.read_text())
    del held["history"], held["config"]["validate_each_epoch"]
    held["config"] |= {"exit_weights": "asc", "prune_tolerance": 0.01, "patience": 3}  # which did nothing
    path.write_text(json.dumps({**held, "curve": []}))
    assert finetune(run, FinetuneConfig(**QUICK)) == [report.model_copy(update={"history": (), "curve": ()})]
    written = write_report(run)
    assert written.problems == () and "finetuning.png" not in {picture.name for picture in written.pictures}


def test_two_phases_on_the_command_line_report_epochs_and_exits(command, tmp_path):
    run = make_run(tmp_path)
    code, out, error = command(
        *("finetune", run, "--method", "aep", "--phases", 2, "--epochs", 3, "--patience", 1),
        *("--batch-size", 64, "--no-distil", "--prune", "latency", "--prune", "params"),
        *("--prune-tolerance", 0.05, "--learning-rate", 0.05, "--json"),
    )
    assert code == 0, error
    (report,) = json.loads(out)
    assert report["config"]["prune"] == ["latency_ms", "params"]
    assert report["epochs"] in (1.0, 2.0, 3.0) and len(report["curve"]) in (2, 3)
    assert [row["top1"] for row in report["history"] if row["phase"] == 1] == report["curve"]
    assert [row["epoch"] for row in report["history"] if row["phase"] == 2][-1] == report["epochs"]
    states = [state for state in report["states"] if state["feasible"]]
    best = max(state["top1"] for state in states)
    near = [state for state in states if state["top1"] >= best - 0.05]
    (kept,) = [state for state in states if state["kept"]]
    assert kept["costs"]["latency_ms"] == min(state["costs"]["latency_ms"] for state in near)
    assert any(state["non_dominated"] for state in states)
    assert not list(run.rglob("exit_latencies.json"))  # the table is of another machine


def test_exits_are_measured_where_latency_decides_and_the_machine_is_the_tables(tmp_path, monkeypatch):
    run = make_run(tmp_path, here=True)
    config = FinetuneConfig(method="aep", network="best", prune=("latency",), **QUICK)
    (report,) = finetune(run, config)
    assert len(report.states) == 7
    for state in report.states:
        assert state.costs["latency_ms"] == state.measured[""].median_ms
    assert report.costs["latency_ms"] in [state.measured[""].median_ms for state in report.states]


def test_exits_are_added_where_the_supernet_has_none(tmp_path):
    run = make_run(tmp_path, exits="final")
    (report,) = finetune(run, FinetuneConfig(method="aep", prune=("none",), **QUICK))
    assert report.architecture["exits"] == [1, 2, 3]
    assert report.test.top1 > report.validation_before.top1
    assert "latency_ms" not in report.costs  # its table knows no such exits
    found, _ = open_network(run, report.id)
    assert found.info.space.exits == "several"


def test_a_latency_that_nobody_knows_is_refused_before_training(tmp_path):
    run = make_run(tmp_path, exits="final", budgets=("latency<=50ms",))
    with pytest.raises(UserError, match="not known of networks with added exits"):
        finetune(run, FinetuneConfig(method="aep", **QUICK))
    assert not list((run / "networks").glob("*/finetune.json"))


def test_exits_are_judged_in_the_networks_precision(tmp_path):
    run = make_run(tmp_path, precision="int8")
    longer = QUICK | {"epochs": 8.0}  # what has hardly learnt anything does not survive 8 bits
    (report,) = finetune(run, FinetuneConfig(method="aep", prune=("none",), **longer))
    assert report.architecture["precision"] == "int8" and report.architecture["exits"] == [1, 2, 3]
    assert report.costs["size_mb"] < 0.5 * report.costs["params"] * 4e-6  # of four bytes each in fp32
    found, data = open_network(run, report.id)
    exact = judge(found.network, data, data.test, 16)
    manifest = export(run, ExportConfig(network=report.id), tmp_path / "bundle")
    assert manifest.target.precision == "int8"
    assert manifest.evidence.accuracy.top1 == pytest.approx(report.test.top1, abs=0.02)
    assert report.test.top1 == pytest.approx(exact.top1, abs=0.1)


def test_side_by_side_gives_what_one_after_the_other_gives(aep_run, tmp_path):
    _, expected = aep_run
    run = make_run(tmp_path)
    told = []
    config = FinetuneConfig(
        method="aep", network="all", prune=("none",), exit_weights="mix", workers=2, **QUICK
    )
    reports = finetune(run, config, lambda stage, done, total, detail="": told.append((stage, done, total)))
    assert reports == expected
    assert told[-1] == ("fine-tune 2 networks", 2.0, 2)


def test_a_worker_that_is_killed_is_one_line(tmp_path):
    run = make_run(tmp_path)
    config = FinetuneConfig(network="all", workers=2, **QUICK)
    jobs = [finetune_workers.Job(run, "nothing", config)]
    with pytest.raises(UserError, match="network nothing: no network 'nothing' in the front"):
        finetune_workers.tune_side_by_side(jobs, ["cpu"], lambda *where: None)


@pytest.fixture
def ended_by(monkeypatch):
    """Ways in which this process, made a worker whose parent ends when it says so, was ended."""
    ended, parent = SimpleNamespace(codes=[], parent=threading.Event()), SimpleNamespace()
    parent.join = ended.parent.wait
    monkeypatch.setattr(finetune_workers.multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(finetune_workers.os, "_exit", ended.codes.append)
    return ended


def test_a_worker_ends_with_its_parent_and_memory_that_runs_out_is_one_line(ended_by, monkeypatch, tmp_path):
    def read(_):
        raise MemoryError

    monkeypatch.setattr(finetune_workers, "current_front", read)
    before, (ours, theirs) = threading.active_count(), multiprocessing.Pipe()
    finetune_workers._work(finetune_workers.Job(tmp_path, "a", FinetuneConfig()), "cpu", 1, theirs)
    assert ours.recv() == ("failed", 0.0, "memory ran out; use fewer workers or smaller batches")
    assert ended_by.codes == []  # while its parent lives
    ended_by.parent.set()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert ended_by.codes == [1]


@pytest.mark.parametrize(
    ("error", "told", "traced"),
    [
        (
            RuntimeError("CUDA error: no kernel image\nmore"),
            "RuntimeError: CUDA error: no kernel image",
            True,
        ),
        (PermissionError(13, "Permission denied", "x"), "PermissionError: [Errno 13] Permission", False),
    ],
)
def test_what_a_worker_cannot_do_is_told_as_it_is(
    ended_by, monkeypatch, tmp_path, capfd, error, told, traced
):
    def read(_):
        raise error

    monkeypatch.setattr(finetune_workers, "current_front", read)
    ours, theirs = multiprocessing.Pipe()
    finetune_workers._work(finetune_workers.Job(tmp_path, "a", FinetuneConfig()), "cpu", 1, theirs)
    kind, _, words = ours.recv()
    assert kind == "failed" and words.startswith(told) and "more" not in words
    assert ("Traceback" in capfd.readouterr().err) == traced
    ended_by.parent.set()


def test_how_a_worker_ended_that_told_nothing():
    context = multiprocessing.get_context("spawn")
    killed, left = context.Process(target=time.sleep, args=(60,)), context.Process(target=sys.exit, args=(3,))
    killed.start()
    left.start()
    killed.kill()
    assert "killed, as systems do where memory runs out; use fewer workers" in finetune_workers._end(killed)
    assert finetune_workers._end(left) == "its process ended with exit code 3; run this again to go on"


def test_ctrl_c_is_for_the_parent_alone():
    """From its first moment on: a worker that is still loading would print what it was at."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    with finetune_workers.without_ctrl_c():
        process.start()
        status = Path(f"/proc/{process.pid}/status").read_text()
    process.kill()
    process.join()
    (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    assert int(blocked, 16) >> signal.SIGINT - 1 & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


class _InAThread(threading.Thread):
    def __init__(self, target, args, daemon):
        *others, connection = args
        own = Connection(os.dup(connection.fileno()))  # a process has one of its own, too
        super().__init__(target=target, args=(*others, own), daemon=daemon)

    def kill(self):
        pass


def test_a_network_goes_to_the_device_that_has_become_free(monkeypatch, tmp_path):
    where, third_begun = [], threading.Event()

    def work(job, device, threads, connection):
        where.append((job.network, device))
        if job.network == "c":
            third_begun.set()
        if job.network == "a":
            third_begun.wait(60)
        connection.send(("done", 1.0, ""))

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=_InAThread)
    monkeypatch.setattr(finetune_workers.multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(finetune_workers, "_work", work)
    jobs = [finetune_workers.Job(tmp_path, name, FinetuneConfig()) for name in "abc"]
    finetune_workers.tune_side_by_side(jobs, ["cuda:0", "cuda:1"], lambda *where: None)
    assert sorted(where) == [("a", "cuda:0"), ("b", "cuda:1"), ("c", "cuda:1")]


@pytest.mark.parametrize("more", [{"workers": 2}, {"devices": ("cpu", "cpu")}])
def test_two_at_a_time_on_one_device_however_that_is_said(tmp_path, monkeypatch, more):
    def tune(jobs, places, report):
        raise UserError(f"{len(jobs)} networks on {places}")

    monkeypatch.setattr(finetune_run, "tune_side_by_side", tune)
    with pytest.raises(UserError, match=r"^2 networks on \['cpu', 'cpu'\]$"):
        finetune(make_run(tmp_path), FinetuneConfig(network="all", **QUICK | more))


@pytest.mark.parametrize(("phases", "taught"), [(1, 0.4), (2, 1)])
def test_a_teacher_knows_how_long_it_teaches(tmp_path, monkeypatch, phases, taught):
    def teacher(*_, epochs):
        raise UserError(f"{epochs:g} epochs")

    monkeypatch.setattr(finetune_network, "CalibratedTeacher", teacher)
    config = FinetuneConfig(**QUICK | {"epochs": 0.4, "phases": phases, "distil": True})
    with pytest.raises(UserError, match=rf"^{taught:g} epochs$"):
        finetune(make_run(tmp_path), config)


def test_no_such_gpu_is_one_line(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(UserError, match="device cuda:99 is not here"):
        finetune(run, FinetuneConfig(devices=("cuda:99",), **QUICK))


def test_a_front_that_the_search_has_gone_on_since_is_refused_in_one_line(aep_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(aep_run[0], run)
    front = load_front(run / "front.json")
    archive = run / "archive.jsonl"
    passed, own = '{"passed_by": "abc"}', '{"id": "abc"}'
    archive.write_text("\n".join([passed, *[own] * (front.evaluations + 1)]) + "\n")
    stopped = front.model_copy(update={"complete": False})
    save_front(stopped, run / "front.json")
    assert open_network(run, front.networks[0].id)  # Ctrl-C may have come in the middle of writing one
    with archive.open("a") as stream:
        stream.write(own + "\n")
    save_front(stopped.model_copy(update={"complete": True}), run / "front.json")
    assert open_network(run, front.networks[0].id)
    save_front(stopped, run / "front.json")
    for use in (
        lambda: finetune(run, FinetuneConfig(**QUICK)),
        lambda: export(run, ExportConfig(), tmp_path / "bundle"),
    ):
        with pytest.raises(UserError, match=r"is older than the run.*; repeat the search's command"):
            use()
    assert not (tmp_path / "bundle").exists()
