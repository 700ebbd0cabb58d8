"""Super-networks of two widths in one run: searched, resumed, fine-tuned, exported, started from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from whole_way import CONFIG, TINY_SPACE

from nat2deploy.data.load import load_data
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.progress import silent
from nat2deploy.run import pipeline
from nat2deploy.run.config import (
    ExportConfig,
    FinetuneConfig,
    PipelineConfig,
    SearchConfig,
    SearchedSpace,
    SpaceConfig,
    TrainConfig,
    load_pipeline,
)
from nat2deploy.run.directory import RunDirectory
from nat2deploy.run.export import export
from nat2deploy.run.finetune import finetune
from nat2deploy.run.front import FrontNetwork, load_front, save_front
from nat2deploy.run.networks import open_network
from nat2deploy.run.pipeline import _search_config, run_pipeline
from nat2deploy.run.search import search
from nat2deploy.run.train import train
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, save_supernet
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.supernet.saved_network import load_network

WIDE_SPACE = TINY_SPACE.replace("widths = [1.0]", "widths = [1.0, 2.0]")
SETTINGS = {
    "archive_size": 8,
    "candidates": 3,
    "rounds": 1,
    "population": 8,
    "generations": 2,
    "surrogates": ["bayesian-ridge"],
    "top": 4,
    "adapt_epochs": 0.2,
    "batch_size": 64,
    "recalibration_images": 64,
    "validation_images": 100,
}


@pytest.fixture(scope="module")
def space_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(WIDE_SPACE)
    return path


def save_fresh(path, space, width, classes=10):
    torch.manual_seed(0)
    data = load_data("digits")
    supernet = SuperNetwork(space, width, classes)
    info = SuperNetworkInfo(
        space=supernet.space, width=width, classes=classes, data=data.name, labels=data.labels[:classes]
    )
    save_supernet(path, supernet, info)
    return str(path)


@pytest.fixture(scope="module")
def supernets(space_file, tmp_path_factory):
    """Untrained super-networks of digits, one a width."""
    folder = tmp_path_factory.mktemp("supernets")
    space = load_space(str(space_file))
    return tuple(save_fresh(folder / f"w{width:g}.safetensors", space, width) for width in (1.0, 2.0))


@pytest.fixture(scope="module")
def config(supernets):
    given = {"supernet": supernets, "data": "digits", "budgets": ["macs<=2M"], "settings": SETTINGS}
    return parse(SearchConfig, given, "config")


def archive(run):
    return [json.loads(line) for line in (run / "archive.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A finished search whose front is made to hold one network of each width, the best of its archive."""
    out = tmp_path_factory.mktemp("two") / "run"
    front = search(config, out)
    assert front.complete and front.networks
    networks = []
    for width in (1.0, 2.0):
        lines = [x for x in archive(out) if x["version"] == 1 and x["architecture"]["w"] == width]
        best = max(lines, key=lambda x: x["values"]["top1"])
        costs = {key: value for key, value in best["values"].items() if key != "top1"}
        networks.append(
            FrontNetwork(
                id=best["id"],
                architecture=best["architecture"],
                top1=best["values"]["top1"],
                costs=costs,
                feasible=True,
            )
        )
    save_front(front.model_copy(update={"networks": tuple(networks)}), out / "front.json")
    return out


def test_a_run_says_which_super_networks_it_is_of(run, config, supernets):
    held = RunDirectory(run).read_config(SearchConfig)
    assert held == config and held.supernets == supernets
    assert load_supernet(run / "supernet.safetensors")[1].widths == (1.0, 2.0)


def test_a_network_comes_from_the_super_network_of_its_width(run):
    supernet, info = load_supernet(run / "supernet.safetensors")
    for chosen in load_front(run / "front.json").networks:
        opened, _ = open_network(run, chosen.id)
        architecture = parse_architecture(info.space, chosen.architecture)
        own = supernet.at(architecture.width).extract(architecture)
        weights = dict(opened.network.named_parameters())
        assert all(torch.equal(weights[name], value) for name, value in own.named_parameters())


def test_one_of_each_width_is_fine_tuned_and_exported(run, tmp_path):
    reports = finetune(run, FinetuneConfig(epochs=0.3, network="all", batch_size=64))
    assert len(reports) == 2
    for report, channels in zip(reports, (8, 16), strict=True):
        network, info = load_network(run / "networks" / report.id / "network.safetensors")
        assert network.stem[0].conv.out_channels == channels
        assert info.choice.id == report.id
        manifest = export(run, ExportConfig(network=report.id), tmp_path / report.id)
        assert manifest.network == report.id
        assert manifest.evidence.accuracy.top1 == pytest.approx(report.test.top1)


def test_a_search_from_its_archive_and_weights_judges_only_what_is_new(run, config, tmp_path):
    again = config.model_copy(
        update={"supernet": str(run / "supernet.safetensors"), "start": str(run), "budgets": ("macs<=1.9M",)}
    )
    search(again, tmp_path / "run")
    old = {line["id"]: line for line in archive(run) if line["version"] == 1}
    first = [line for line in archive(tmp_path / "run") if line["version"] == 0 and line["role"] == "archive"]
    known = [line for line in first if line["id"] in old]
    assert {line["architecture"]["w"] for line in known} == {1.0, 2.0}
    assert all(line["values"]["top1"] == old[line["id"]]["values"]["top1"] for line in known)


def test_a_search_of_one_width_starts_from_what_a_run_of_both_knows_of_it(run, supernets, config, tmp_path):
    one = config.model_copy(update={"supernet": supernets[1], "start": str(run)})
    search(one, tmp_path / "run")
    assert {line["architecture"]["w"] for line in archive(tmp_path / "run")} == {2.0}


def test_what_cannot_be_searched_together_is_refused_before_anything_is_written(
    supernets, config, space_file, tmp_path
):
    space = load_space(str(space_file))
    twin = save_fresh(tmp_path / "twin.safetensors", space, 1.0)
    other = save_fresh(tmp_path / "other.safetensors", space.model_copy(update={"kernels": (3,)}), 2.0)
    elsewhere = save_fresh(tmp_path / "16.safetensors", space.restrict(resolutions=(16,)), 1.0)
    apart = save_fresh(tmp_path / "20.safetensors", space.restrict(resolutions=(20,)), 2.0)
    for given, message in (
        ((supernets[0], twin), "two of the super-networks are of width 1; give one of each width"),
        ((supernets[0], other), "side by side are of one space"),
        ((elsewhere, apart), "no resolution in common"),
        ((supernets[0], str(tmp_path / "none.safetensors")), "none.safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            search(config.model_copy(update={"supernet": given}), tmp_path / "run")
    wider = config.model_copy(
        update={"supernet": elsewhere, "space": SearchedSpace(name=str(space_file), resolutions=(16, 20))}
    )
    with pytest.raises(UserError, match=r"resolution 20 is not one that super-network .* choose from 16,"):
        search(wider, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_common_resolutions_are_searched(supernets, config, space_file, tmp_path):
    space = load_space(str(space_file))
    narrow = save_fresh(tmp_path / "16.safetensors", space.restrict(resolutions=(16,)), 1.0)
    search(config.model_copy(update={"supernet": (supernets[1], narrow)}), tmp_path / "run")
    assert {line["architecture"]["r"] for line in archive(tmp_path / "run")} == {16}


def test_training_starts_from_one_of_both(run, space_file, tmp_path):
    config = TrainConfig(start=str(run / "supernet.safetensors"), epochs=0.1, width=2.0, batch_size=64)
    info = train(SpaceConfig(name=str(space_file)), "digits", config, tmp_path / "w.safetensors")
    assert info.widths == (2.0,) and info.space.widths == (2.0,)
    with pytest.raises(UserError, match="a training is of one"):
        several = TrainConfig(width=(1.0, 2.0))
        train(SpaceConfig(name=str(space_file)), "digits", several, tmp_path / "v.safetensors")


@pytest.mark.slow
def test_a_pipeline_trains_and_searches_both(space_file, tmp_path):
    text = CONFIG.format(space=space_file).replace(
        "[train]\nepochs = 12", "[train]\nwidth = [1.0, 2.0]\nepochs = 2"
    )
    text = text.replace("params<=20k", "params<=60k").replace("rounds = 2", "rounds = 1")
    (tmp_path / "config.toml").write_text(text)
    config = load_pipeline(tmp_path / "config.toml")
    assert config.train.widths == (1.0, 2.0)
    outcome = run_pipeline(config, tmp_path / "run")
    for width in (1.0, 2.0):
        assert load_supernet(tmp_path / "run" / f"supernet-w{width:g}.safetensors")[1].width == width
    assert {line["architecture"]["w"] for line in archive(tmp_path / "run" / "search")} == {1.0, 2.0}
    assert outcome.finetuned and all(check.ok for check in outcome.verification.checks)
    held = RunDirectory(tmp_path / "run" / "search").read_config(SearchConfig)
    assert held.supernets == tuple(str(tmp_path / "run" / f"supernet-w{w}.safetensors") for w in (1, 2))


def test_each_width_has_a_learning_curve_of_its_own(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        pipeline, "train", lambda space, data, settings, *_, **__: seen.append(settings.curve)
    )
    given = {"data": "digits", "train": {"width": [1.0, 2.0], "curve": "c"}}
    pipeline._train(parse(PipelineConfig, given, "config"), tmp_path, silent)
    assert seen == [str(Path("c") / name) for name in ("w1", "w2")]


def test_a_pipeline_takes_super_networks_that_are_there(supernets):
    train = {"supernet": list(supernets)}
    config = parse(PipelineConfig, {"data": "digits", "train": train}, "config")
    assert config.train.supernet == supernets
    assert _search_config(config, supernets, Path("table.json")).supernets == supernets


def test_a_pipeline_of_a_width_that_the_space_has_not_is_refused_at_once(space_file, tmp_path):
    (tmp_path / "config.toml").write_text(
        CONFIG.format(space=space_file).replace("[train]", "[train]\nwidth = [1.0, 3.0]")
    )
    with pytest.raises(UserError, match="widths: 3 is not in it"):
        run_pipeline(load_pipeline(tmp_path / "config.toml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
