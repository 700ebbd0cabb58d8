"""A search under each preset, small but to its end: from a config to a front."""

from __future__ import annotations

import json

import pytest
import torch
from whole_way import TINY_SPACE

from nat2deploy.data.load import load_data
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_toml
from nat2deploy.run.config import PipelineConfig, SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.front import load_front
from nat2deploy.run.search import search
from nat2deploy.search import distribution, searchers
from nat2deploy.search.presets import PRESETS
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.network import SuperNetwork

SMALL = {
    "archive_size": 12,
    "candidates": 3,
    "rounds": 2,
    "population": 12,
    "generations": 2,
    "top": 5,
    "adapt_epochs": 0.2,
    "batch_size": 64,
    "recalibration_images": 64,
    "validation_images": 100,
}


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """An untrained super-network of digits."""
    folder = tmp_path_factory.mktemp("supernet")
    (folder / "tiny.toml").write_text(TINY_SPACE)
    space = load_space(str(folder / "tiny.toml"))
    data = load_data("digits")
    torch.manual_seed(0)
    info = SuperNetworkInfo(space=space, width=1.0, classes=data.classes, data=data.name, labels=data.labels)
    path = folder / "w.safetensors"
    save_supernet(path, SuperNetwork(space, 1.0, data.classes), info)
    return str(path)


def config_of(supernet, tmp_path, text):
    """A config as people write it, with the small sizes."""
    path = tmp_path / "search.toml"
    path.write_text(text)
    settings = {**SMALL, **read_toml(path, "settings")}
    if settings.get("preset") in ("nat", "nat2"):
        settings |= {"subset_population": 8, "subset_generations": 2}
    if settings.get("preset") == "fixed":
        del settings["adapt_epochs"]  # its own is none
    given = {
        "supernet": supernet,
        "data": "digits",
        "budgets": ["params<=30k", "macs<=400k"],
        "settings": settings,
    }
    return parse(SearchConfig, given, "config")


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_searches_to_its_end(supernet, tmp_path, monkeypatch, preset):
    monkeypatch.setattr(distribution, "families", lambda: ["norm", "expon", "uniform"])  # a hundred take long
    config = config_of(supernet, tmp_path, f'preset = "{preset}"\nseed = 1\n')
    front = search(config, tmp_path / "run")
    assert front.complete and front.rounds == 2 and front.networks
    assert front == load_front(tmp_path / "run" / "front.json")
    assert front.objectives == ("top1", "params", "macs")
    assert sum(network.high_tradeoff for network in front.networks) == min(4, len(front.networks))
    archive = [json.loads(line) for line in (tmp_path / "run" / "archive.jsonl").read_text().splitlines()]
    drawn = [line for line in archive if line["role"] == "drawn"]
    last = [line for line in archive if line["version"] == 2]
    assert len(drawn) == {"ours": 0, "fixed": 0, "nat": 0, "nat2": 120}[preset]
    # Where weights stay as they are nothing is judged again after the last round.
    assert len(last) == {"ours": 12, "fixed": 0, "nat": 18, "nat2": 12}[preset]
    judged = [line["architecture"] for line in archive]
    assert (len(set(map(json.dumps, judged))) == len(judged)) == (preset == "fixed")
    # Its own config is all that a run needs to go on, or to be done again.
    assert RunDirectory(tmp_path / "run").read_config(SearchConfig) == config
    assert search(config, tmp_path / "run") == front


def test_a_pipeline_takes_a_preset_too():
    config = parse(PipelineConfig, {"data": "digits", "search": {"preset": "nat2", "rounds": 2}}, "config")
    assert (config.search.archive_size, config.search.rounds) == (300, 2)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ('preset = "nat2"', "lightgbm"),
        ('searcher = "age-moea-2"', "numba"),
        ('surrogates = ["catboost"]', "catboost"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_done(supernet, tmp_path, monkeypatch, text, module):
    find = searchers.importlib.util.find_spec
    monkeypatch.setattr(
        searchers.importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(UserError, match=f"needs the package {module}"):
        search(config_of(supernet, tmp_path, text), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_accuracy_alone_names_the_cost_that_budgets_limit(supernet, tmp_path):
    said = []
    config = config_of(supernet, tmp_path, "accuracy_only = true")
    front = search(config, tmp_path / "run", lambda stage, done, total, words="": said.append(words))
    assert front.objectives == ("top1",)
    assert len({network.top1 for network in front.networks}) == 1
    assert not any(network.high_tradeoff for network in front.networks)
    assert any(words.startswith("best ") for words in said)
    assert all(network.costs["params"] <= 30_000 for network in front.networks)
