"""What ``make torture`` looks at, and that it would see what it looks for."""

import json
import shutil
from contextlib import nullcontext

import pytest
from safetensors.torch import load_file, save_file

from torture import kills
from torture.commands import Ended, faults_of_refusal
from torture.injected import FAULTS
from torture.kills import killed
from torture.results import differences, half_written, leftovers, result_of
from torture.scenario import Bench


@pytest.fixture
def run(outcome, tmp_path):
    """A finished pipeline that may be damaged."""
    shutil.copytree(outcome.out, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_pipeline_has_nothing_half_written_and_nothing_left(run):
    assert half_written(run) == leftovers(run, finished=True) == []
    result = result_of(run)
    assert differences(result, result) == []
    names = {name.rsplit("/", 1)[-1] for name in result}
    assert names >= {"archive.jsonl", "front.json", "supernet.safetensors", "model.onnx", "finetune.json"}


def test_every_difference_is_named(run):
    before = result_of(run)
    (run / "search" / "front.json").write_text("{}")
    (run / "bundle" / "model.onnx").unlink()
    assert differences(result_of(run), before) == [
        "bundle/model.onnx is missing",
        "search/front.json differs",
    ]
    assert differences(before, {}) == [f"{name} is new" for name in sorted(before)]


@pytest.mark.parametrize(
    "name",
    ["search/front.json", "supernet.safetensors", "report.html", "report/front.png", "search/archive.jsonl"],
)
def test_a_file_that_is_half_written_is_found(run, name):
    data = (run / name).read_bytes()
    if name.endswith("l") and "archive" in name:
        data = data.replace(b"}", b"", 1)  # the last line may be a part, none before it
    (run / name).write_bytes(data if "archive" in name else data[: len(data) // 2])
    assert [one.partition(":")[0] for one in half_written(run)] == [name]


def test_weights_that_are_no_numbers_are_found(run):
    path = run / "search" / "supernet.safetensors"
    tensors = load_file(path)
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).fill_(float("nan"))
    save_file(tensors, path)
    assert half_written(run) == ["search/supernet.safetensors: weights that are not finite"]


def test_what_a_kill_leaves_is_found_where_the_run_is_finished(run):
    (run / "search" / ".adaptation").touch()
    (run / ".x.tmp").touch()
    assert leftovers(run, finished=False) == [".x.tmp is left"]
    assert sorted(leftovers(run, finished=True)) == [".x.tmp is left", "search/.adaptation is left"]


def test_one_line_of_error_and_exit_code_2_are_right_and_nothing_else():
    assert faults_of_refusal(Ended(2, "train: loss 1\nerror: the disk is full\n")) == []
    assert len(faults_of_refusal(Ended(1, "error: x"))) == 1
    assert len(faults_of_refusal(Ended(2, "error: x\nerror: y"))) == 1
    assert len(faults_of_refusal(Ended(1, "Traceback (most recent call last):\nValueError"))) == 3


def test_every_fault_has_a_name():
    assert set(FAULTS) == {"none", "memory", "nan-loss", "nan-gradient", "clock"}


def test_a_command_that_is_killed_counts_only_when_it_was_still_there(run, monkeypatch):
    """Two commands of each run are killed in their sleep, and the third one ends by itself."""
    lives, made = iter([False, False, True] * 2), []

    class Sleeping:
        @classmethod
        def start(cls, *words, said):
            made.append(words)
            return cls()

        def wait(self, timeout_s):
            return next(lives)

        def kill(self):
            pass

        def end(self):
            return Ended(0, "")

    monkeypatch.setattr(kills, "Command", Sleeping)
    bench = Bench(run.parent, run / "config.toml", result_of(run), 1.0, 0)
    monkeypatch.setattr(Bench, "place", lambda self, name: nullcontext(run))
    found = killed(bench, 4)
    assert (found.faults, found.runs, found.problems) == (4, 2, [])
    assert len(made) == 6 and json.dumps(made).count("--workers") == 6
