"""Fine-tuning that was killed goes on where it was, and ends the same."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time

import pytest
from early_run import QUICK, make_run
from programs import Program

from nat2deploy.cli.app import app
from nat2deploy.run import finetune_network
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_config import FinetuneConfig


@pytest.mark.parametrize("phases", [1, 2])
def test_a_kill_before_the_result_is_stored_costs_no_training(tmp_path, monkeypatch, phases):
    config = FinetuneConfig(**QUICK, phases=phases)
    (tmp_path / "whole").mkdir()
    expected = finetune(make_run(tmp_path / "whole"), config)
    run = make_run(tmp_path)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune_network, "save_network", kill)
        finetune(run, config)
    assert list(run.rglob(".phase*"))
    told = []
    assert finetune(run, config, lambda *now: told.append(now)) == expected
    assert told == []
    assert not list(run.rglob(".phase*"))


def test_weights_never_lie_beside_the_report_of_others(tmp_path, monkeypatch):
    first, second = FinetuneConfig(**QUICK), FinetuneConfig(**QUICK | {"learning_rate": 0.1})
    run = make_run(tmp_path)
    expected = finetune(run, first)
    folder = run / "networks" / expected[0].id

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune_network, "write_json", kill)  # after the weights, before the report
        finetune(run, second)
    assert (folder / "network.safetensors").exists() and not (folder / "finetune.json").exists()
    assert finetune(run, first) == expected


def test_what_a_kill_left_of_a_tuning_that_is_done_is_removed(tmp_path):
    run = make_run(tmp_path)
    (report,) = finetune(run, FinetuneConfig(**QUICK))
    folder = run / "networks" / report.id
    written = (folder / "finetune.json").stat().st_mtime
    for name, age in ((".phase1", 1), (".phase2", -1)):  # the second one is of a tuning begun since
        (folder / name).touch()
        os.utime(folder / name, (written - age, written - age))
    assert finetune(run, FinetuneConfig(**QUICK)) == [report]
    assert [path.name for path in folder.glob(".phase*")] == [".phase2"]


TWO_PHASES = ("--method", "aep", "--phases", "2", "--network", "all", "--epochs", "2", "--batch-size", "128")


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory):
    """What tuning in two phases reports when nobody disturbs it."""
    run = make_run(tmp_path_factory.mktemp("whole"))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        app(["finetune", str(run), *TWO_PHASES, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(two_phases, command, tmp_path, workers):
    run = make_run(tmp_path)
    words = ("finetune", str(run), *TWO_PHASES, "--workers", workers, "--json")
    with Program("-m", "nat2deploy", *words, folder=tmp_path) as program:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and program.poll() is None:
            if list(run.rglob(".phase1")):
                program.kill()
                break
            time.sleep(0.005)
        assert program.wait() == -signal.SIGKILL, "it ended before it could be killed"
    code, out, error = command(*words)
    assert code == 0, error
    assert json.loads(out) == two_phases
