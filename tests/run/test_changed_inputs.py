"""A search goes on with the inputs that it began with, and says which one is another now."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.data.load import load_data
from nat2deploy.errors import UserError
from nat2deploy.run import beginning
from nat2deploy.run.config import ExportConfig, SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.finetune import finetune
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.search import search
from nat2deploy.search.archive import read_archive
from nat2deploy.search.judges.base import JobRunner
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.saved_network import load_network, save_network

BEGUN = "begun.json"


@pytest.fixture
def config(outcome, tmp_path) -> SearchConfig:
    """A search of one round, with a table of its own."""
    held = RunDirectory(outcome.out / "search").read_config(SearchConfig)
    table = shutil.copy(outcome.out / "table.json", tmp_path / "table.json")
    settings = held.settings.model_copy(update={"rounds": 1, "archive_size": 6, "candidates": 2})
    return held.model_copy(
        update={"table": str(table), "budgets": (), "measure": False, "settings": settings}
    )


def stop_at(lines: int, run: Path):
    """Ends a search once its archive has so many lines."""

    def report(stage, done, total, detail=""):
        archive = run / "archive.jsonl"
        if archive.exists() and len(archive.read_bytes().splitlines()) >= lines:
            raise KeyboardInterrupt

    return report


def begun(config: SearchConfig, run: Path, lines: int = 4) -> Path:
    with pytest.raises(KeyboardInterrupt):
        search(config, run, stop_at(lines, run))
    return run


def archive(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "archive.jsonl").read_text().splitlines()]


def slow_down(path: Path, times: float) -> None:
    table = json.loads(path.read_text())
    for entry in table["entries"].values():
        for name in ("median_ms", "p95_ms", "p99_ms", "ci_low_ms", "ci_high_ms"):
            entry[name] *= times
    path.write_text(json.dumps(table))


def test_latencies_of_two_tables_are_not_mixed(config, tmp_path):
    table, run = Path(config.table), begun(config, tmp_path / "run")
    before = table.read_bytes(), (run / "archive.jsonl").read_bytes()
    space, first = load_space(config.space.name), load_table(table)
    slow_down(table, 2.0)
    with pytest.raises(UserError, match=r"begun with another latency table: .* was .* ms, now it is .* ms"):
        search(config, run)
    assert (run / "archive.jsonl").read_bytes() == before[1]
    weights = str(run / "supernet.safetensors")
    anew = search(config.model_copy(update={"start": str(run), "supernet": weights}), tmp_path / "anew")
    second = load_table(table)
    table.write_bytes(before[0])
    front = search(config, run)  # put back, it goes on
    assert anew.complete and front.complete
    for folder, own, other in ((tmp_path / "anew", second, first), (run, first, second)):
        costs, others = CostModel(space, 10, own), CostModel(space, 10, other)
        for found in read_archive(folder / "archive.jsonl", space):
            said = found.values["latency_ms"]
            assert said == pytest.approx(costs.values(found.architecture)["latency_ms"])
            assert said != pytest.approx(others.values(found.architecture)["latency_ms"])
    ids = [{line["id"] for line in archive(folder)} for folder in (tmp_path / "anew", run)]
    assert ids[0] & ids[1]  # the warm start looked up what it took over


def test_a_table_that_says_the_same_is_no_other_one(config, tmp_path):
    run = begun(config, tmp_path / "run")
    table = load_table(Path(config.table))
    save_table(table.model_copy(update={"certificate": None, "seed": table.seed + 1}), Path(config.table))
    assert search(config, run).complete


def make_photos(folder: Path, classes: str = "ab") -> None:
    rng = np.random.default_rng(0)
    for level, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(30):
            pixels = rng.integers(70 * level, 70 * level + 90, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    for source, target in ((one, between), (other, one), (between, other)):
        source.rename(target)


@pytest.fixture
def photos(config, tmp_path) -> tuple[SearchConfig, Path]:
    """A search on two folders of images."""
    folder = tmp_path / "photos"
    make_photos(folder)
    settings = config.settings.model_copy(update={"warmup_epochs": 0.5, "batch_size": 16})
    return config.model_copy(update={"data": f"imagefolder:{folder}", "settings": settings}), folder


def test_other_images_are_not_judged_beside_those_before(photos, tmp_path):
    config, folder = photos
    run = begun(config, tmp_path / "run")
    before = (run / "archive.jsonl").read_bytes()
    swap(folder / "a", folder / "b")
    with pytest.raises(UserError, match="data set imagefolder:photos holds other images than when run"):
        search(config, run)
    assert (run / "archive.jsonl").read_bytes() == before
    (run / BEGUN).unlink()  # one of an older version goes on
    assert search(config, run).complete
    assert not (run / BEGUN).exists()


def test_also_where_nothing_is_judged_yet(photos, tmp_path):
    config, folder = photos
    run = tmp_path / "run"

    def stop(stage, done, total, detail=""):
        if "warm-up" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(config, run, stop)
    swap(folder / "a", folder / "b")
    with pytest.raises(UserError, match="other images"):
        search(config, run)


def test_another_class_is_named_and_no_traceback(photos, tmp_path):
    config, folder = photos
    run = tmp_path / "run"
    front = search(config, run)
    make_photos(folder, "abc")
    (run / BEGUN).unlink()  # its weights say which classes an older version's run has
    says = r"data set imagefolder:photos has other classes than run .*run was searched with \('c' is new\)"
    for act in (
        lambda: search(config, run),
        lambda: finetune(run, FinetuneConfig(network=front.networks[0].id, epochs=0.1)),
        lambda: export(run, ExportConfig(network=front.networks[0].id), tmp_path / "bundle"),
    ):
        with pytest.raises(UserError, match=says):
            act()
    shutil.rmtree(folder / "c")
    shutil.rmtree(folder / "b")
    make_photos(folder, "az")
    with pytest.raises(UserError, match="'z' is new, 'b' is gone"):
        search(config, run)


def test_other_images_are_neither_tuned_on_nor_exported(photos, tmp_path):
    config, folder = photos
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    front = search(config, run)
    tuning = FinetuneConfig(network=front.networks[0].id, epochs=0.1)
    wanted = ExportConfig(network=front.networks[0].id)
    finetune(run, tuning)
    stored = run / "networks" / front.networks[0].id / "network.safetensors"
    network, info = load_network(stored)
    black = Image.new("RGB", (16, 16))
    for path in folder.glob("a/*.png"):
        black.save(path)
    for act in (
        lambda: finetune(run, tuning.model_copy(update={"seed": 1})),
        lambda: export(run, wanted, bundle),
    ):
        with pytest.raises(UserError, match="imagefolder:photos holds other images than when run"):
            act()
    assert not bundle.exists()
    (run / BEGUN).unlink()  # one of an older version goes on, with what the network learnt from
    manifest = export(run, wanted, bundle)
    made = manifest.input.preprocessing
    assert (made.mean, made.std) == (info.mean, info.std)
    assert load_data(config.data, base_resolution=made.resolution).mean != info.mean
    save_network(stored, network, info.model_copy(update={"labels": ("a", "x")}))
    with pytest.raises(UserError, match=r"other classes than run .* \('b' is new, 'x' is gone\)"):
        export(run, wanted, tmp_path / "other")


@pytest.mark.parametrize("changed", [False, True])
def test_an_earlier_runs_accuracies_hold_for_its_own_images_alone(photos, tmp_path, changed, monkeypatch):
    config, folder = photos
    settings = config.settings.model_copy(update={"adapt_epochs": 0.0})
    config = config.model_copy(update={"settings": settings})
    run = tmp_path / "run"
    search(config, run)
    if changed:
        swap(folder / "a", folder / "b")
    judged = []
    judge = JobRunner.__call__

    def noting(self, supernet, job):
        judged.append(job.architecture.id)
        return judge(self, supernet, job)

    monkeypatch.setattr(JobRunner, "__call__", noting)
    weights = str(run / "supernet.safetensors")
    search(config.model_copy(update={"start": str(run), "supernet": weights}), tmp_path / "next")
    first = {line["id"] for line in archive(tmp_path / "next") if line["role"] == "archive"}
    taken = first & {line["id"] for line in archive(run)}
    assert len(taken) >= 4
    assert taken <= set(judged) if changed else not taken & set(judged)


def test_it_goes_on_in_the_threads_that_it_began_with(config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in beginning._SAID})
    before = torch.get_num_threads()
    run, seen = begun(config, tmp_path / "run"), []
    assert json.loads((run / BEGUN).read_text())["threads"] == before
    monkeypatch.setattr(beginning, "available_cores", lambda: 2)

    def note(stage, done, total, detail=""):
        if "adapt" in stage:
            seen.append(torch.get_num_threads())
            raise KeyboardInterrupt

    for held, said, threads in ((2, "", 2), (3, "", before), (2, "1", before)):
        (run / BEGUN).write_text(json.dumps({**json.loads((run / BEGUN).read_text()), "threads": held}))
        if said:
            monkeypatch.setenv("OMP_NUM_THREADS", said)
        with pytest.raises(KeyboardInterrupt):
            search(config, run, note)
        assert seen.pop() == threads and torch.get_num_threads() == before
