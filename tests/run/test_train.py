"""Training that starts from a super-network's weights."""

import json

import pytest
import torch

from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run import train as training
from nat2deploy.run.config import ExportConfig, SpaceConfig, TrainConfig, load_pipeline
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.train import train
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import load_supernet, save_supernet, supernet_info
from nat2deploy.training.curve import LearningCurve
from nat2deploy.training.supernet import unfinished


@pytest.fixture(scope="module")
def started(outcome, config_path, tmp_path_factory):
    """A short training from the pipeline's super-network: its space, its settings, and where it is."""
    space = load_pipeline(config_path).space
    source = outcome.out / "supernet.safetensors"
    config = TrainConfig(start=str(source), epochs=0.2, learning_rate=1e-5, batch_size=64)
    out = tmp_path_factory.mktemp("started") / "w.safetensors"
    train(space, "digits", config, out, seed=1)
    return space, config, out


def test_it_begins_with_those_weights_and_adds_its_phases(outcome, started):
    _, _, out = started
    before, old = load_supernet(outcome.out / "supernet.safetensors")
    after, info = load_supernet(out)
    assert info.phases[: len(old.phases)] == old.phases
    assert info.phases[len(old.phases) :] == old.phases  # the same phases once more
    assert info.recipe != old.recipe
    # So low a rate moves weights by less than it would take to forget them.
    for key in ("stem.0.conv.weight", "exits.2.1.linear.weight"):
        assert torch.allclose(before.state_dict()[key], after.state_dict()[key], atol=1e-3)
        assert not torch.equal(before.state_dict()[key], after.state_dict()[key])


def test_the_same_command_leaves_it_as_it_is(started):
    space, config, out = started
    bytes_before = out.read_bytes()
    for left in unfinished(out):  # by a kill between the last phase's file and their removal
        left.touch()
    assert train(space, "digits", config, out, seed=1) == supernet_info(out)
    assert out.read_bytes() == bytes_before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_nor_does_it_matter_how_the_default_width_is_spelled(started, tmp_path):
    space, config, out = started
    bytes_before = out.read_bytes()
    default = load_space(space.name).widths[0]
    for width in (default, (default,)):
        train(space, "digits", config.model_copy(update={"width": width}), out, seed=1)
    assert out.read_bytes() == bytes_before
    supernet, info = load_supernet(out)
    spelled = info.model_copy(update={"recipe": info.recipe.replace('"width":null', f'"width":{default}')})
    assert spelled != info
    save_supernet(tmp_path / "w.safetensors", supernet, spelled)  # as earlier versions kept it
    assert train(space, "digits", config, tmp_path / "w.safetensors", seed=1) == spelled


def test_nor_where_it_is_trained(started, tmp_path):
    space, config, out = started
    supernet, info = load_supernet(out)
    assert "device" not in info.recipe
    recipe = info.recipe.replace('"mixed_precision"', '"device":"cpu","mixed_precision"')
    info = info.model_copy(update={"recipe": recipe})
    save_supernet(tmp_path / "w.safetensors", supernet, info)  # as earlier versions kept it
    assert train(space, "digits", config, tmp_path / "w.safetensors", seed=1) == info


def test_another_start_is_another_training(outcome, started, tmp_path):
    space, config, out = started
    other = config.model_copy(update={"start": str(out)})
    with pytest.raises(UserError, match="of other settings"):
        train(space, "digits", other, out, seed=1)


def test_a_start_of_another_space_is_refused(started, tmp_path):
    _, config, _ = started
    with pytest.raises(UserError, match="is of space 'tiny' at width 1, not 'nano' at width 1"):
        train(SpaceConfig(name="nano"), "digits", config, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given", [{"epochs": 3.0}, {"learning_rate": 0.01}, {"epochs": 3.0, "learning_rate": 0.01}]
)
def test_the_papers_schedule_has_its_own_epochs_and_rates(given):
    with pytest.raises(UserError, match=f"eps-paper.*leave out {' and '.join(given)}"):
        parse(TrainConfig, {"schedule": "eps-paper", **given}, "training")
    stored = TrainConfig(schedule="eps-paper").model_dump()  # with its defaults written out
    assert TrainConfig(**stored).schedule == "eps-paper"
    assert TrainConfig(schedule="scaled", **given).epochs == given.get("epochs", 12.0)


@pytest.mark.parametrize("name", ["epochs", "clip", "width"])
def test_what_has_no_end_is_refused(name):
    with pytest.raises(UserError, match=f"{name}.*finite"):
        parse(TrainConfig, {name: float("inf")}, "training")


@pytest.mark.parametrize(
    ("model", "name"),
    [(SearchSettings, "warmup_epochs"), (FinetuneConfig, "clip"), (ExportConfig, "qat_epochs")],
)
def test_nor_anywhere_else(model, name):
    with pytest.raises(UserError, match=f"{name}.*finite"):
        parse(model, {name: float("inf")}, "settings")


@pytest.mark.parametrize("curve", [False, True])
def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch, curve):
    monkeypatch.setattr(training, "train_supernet", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").touch()
    config, out = TrainConfig(), tmp_path / "file" / "w.safetensors"
    if curve:
        config, out = TrainConfig(curve=str(tmp_path / "file")), tmp_path / "w.safetensors"
    with pytest.raises(UserError, match=r"^cannot write .*; choose another place"):
        train(SpaceConfig(), "digits", config, out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(UserError, match=r"w\.safetensors: it is a folder; choose another place"):
        train(SpaceConfig(), "digits", TrainConfig(), tmp_path / "w.safetensors")


def test_a_training_that_another_process_is_at_is_left_to_it(tmp_path, monkeypatch):
    out, config = tmp_path / "w.safetensors", TrainConfig(epochs=0.1)

    def trained(supernet, _phases, _data, info, *_, **__):
        with pytest.raises(
            UserError, match=r"w\.safetensors is being trained by another process; wait for it"
        ):
            train(SpaceConfig(), "digits", config, out)
        save_supernet(out, supernet, info)
        return supernet, info

    monkeypatch.setattr(training, "train_supernet", trained)
    train(SpaceConfig(), "digits", config, out)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_curve_of_another_training_is_refused_before_training(tmp_path, monkeypatch):
    def trained(supernet, phases, *_, watch, **__):
        watch(supernet, phases[0], 1, 1)
        return supernet, None

    def record(self, *_):
        point = {"epochs": 1.0, "phase": "full", "smallest": 0.1, "largest": 0.2, "random": [0.1]}
        (self.folder / "curve.jsonl").write_text(json.dumps({**point, "training": self.training}))

    monkeypatch.setattr(training, "train_supernet", trained)
    monkeypatch.setattr(LearningCurve, "record", record)
    config, out = TrainConfig(curve=str(tmp_path)), tmp_path / "w.safetensors"
    for _ in range(2):  # the second one goes on with the first
        train(SpaceConfig(), "digits", config, out, seed=1)
    with pytest.raises(UserError, match="is of another training"):
        train(SpaceConfig(), "digits", config, out, seed=0)
