"""A run that is run again changes nothing; the config that it stored is all that it takes to repeat it anywhere."""

from __future__ import annotations

import sys

import pytest

from nat2deploy.cli import main
from nat2deploy.run.front import load_front

# Nothing is of this machine: its space, table and data are known by their names, and the weights are trained.
CONFIG = """
data = "digits"
budgets = ["latency<=1s", "params<=300k"]
seed = 5
[space]
name = "nano"
resolutions = [28]
[profile]
table = "nano-x86-1-thread"
[train]
epochs = 0.1
batch_size = 16
[search]
archive_size = 5
candidates = 2
rounds = 1
population = 8
generations = 2
surrogates = ["bayesian-ridge"]
top = 3
adapt_epochs = 0.1
batch_size = 16
recalibration_images = 64
validation_images = 100
[finetune]
epochs = 0.1
batch_size = 16
"""


def run(monkeypatch, *words):
    """Run the command in this process, as a user would; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["nat2deploy", "run", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def made(out):
    """What stages made, as bytes by name: all but what is measured or drawn anew."""
    names = ("table.json", "verification.json", "timings.json")
    found = [p for p in out.rglob("*") if p.is_file() and p.name not in names]
    return {
        p: p.read_bytes() for p in found if p.suffix in (".json", ".jsonl", ".toml", ".safetensors", ".onnx")
    }


@pytest.mark.slow
def test_a_run_changes_nothing_again_and_is_repeated_in_another_folder_from_its_stored_config_alone(
    tmp_path, monkeypatch
):
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    monkeypatch.chdir(first)
    (first / "mine.toml").write_text(CONFIG)
    assert run(monkeypatch, "mine.toml") == 0
    out = first / "runs" / "mine"
    stored = (out / "config.toml").read_text()
    before = made(out)
    assert run(monkeypatch, "mine.toml") == 0
    assert made(out) == before
    first.rename(tmp_path / "away")
    second.mkdir()
    monkeypatch.chdir(second)
    (second / "again.toml").write_text(stored)
    assert run(monkeypatch, "again.toml") == 0

    one, two = (tmp_path / name for name in ("away/runs/mine", "second/runs/again"))
    assert (two / "config.toml").read_text() == stored
    for name in ("supernet.safetensors", "search/archive.jsonl", "search/supernet.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    # Where the table is of this machine the front is measured, and only that differs.
    fronts = [load_front(out / "search" / "front.json") for out in (one, two)]
    found, again = (
        front.model_copy(
            update={"networks": [n.model_copy(update={"measured": None}) for n in front.networks]}
        )
        for front in fronts
    )
    assert found.networks and found.complete
    assert found == again
    models = [(out / "bundle" / "model.onnx").read_bytes() for out in (one, two)]
    assert models[0] == models[1]
