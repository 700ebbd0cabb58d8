"""NAT2's post-processing by name, line by line, and what is refused."""

import pytest
from pydantic import ValidationError

from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run.config import PipelineConfig, TrainConfig
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.search.settings import SearchSettings


def test_the_preset_has_the_numbers_of_the_paper():
    config = FinetuneConfig(preset="nat2")
    assert (config.phases, config.patience, config.epochs) == (2, 30, 150.0)
    assert (config.learning_rate, config.final_rate, config.batch_size) == (1e-4, 1e-8, 64)
    assert (config.optimiser, config.weight_decay) == ("by-exits", 5e-4)
    assert (config.exit_weights, config.prune) == ("unif", ("none",))
    assert (config.warmup_epochs, config.clip, config.label_smoothing, config.distil) == (0, 0, 0, False)


def test_what_is_given_goes_before_the_preset():
    config = FinetuneConfig(preset="nat2", method="aep", epochs=3.0, prune=("latency",))
    assert (config.epochs, config.prune, config.patience) == (3.0, ("latency_ms",), 30)
    assert FinetuneConfig.model_validate(config.model_dump(exclude_none=True)) == config


def test_the_result_does_not_depend_on_who_else_is_tuned_or_where():
    one = FinetuneConfig(network="all", workers=4, devices=("cuda:0", "cuda:1"))
    assert one.of("abc") == FinetuneConfig(network="abc").of("abc")


@pytest.mark.parametrize(
    "fields",
    [
        {"prune": ("accuracy", "latency")},
        {"prune": ("speed",)},
        {"prune": ()},
        {"phases": 3},
        {"exit_weights": "best"},
        {"devices": ("tpu",)},
        {"method": "AEP"},
        {"preset": "nat3"},
    ],
)
def test_other_settings_are_refused(fields):
    with pytest.raises(ValidationError):
        FinetuneConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"exit_weights": "asc", "prune": ["latency"], "prune_tolerance": 0.01},
            "exit_weights, prune and prune_tolerance are for method = aep alone; add that, or leave them out",
        ),
        ({"measure": False}, "measure is for method = aep alone; add that, or leave it out"),
        ({"prune": ["accuracy"]}, "prune is for method = aep alone"),
        ({"preset": "nat2", "prune": ["latency"]}, "prune is for method = aep alone"),
        ({"method": "plain", "exit_weights": "mix"}, "exit_weights is for method = aep alone"),
        ({"patience": 30}, "patience is for phases = 2 alone; add that, or leave it out"),
        ({"method": "aep", "patience": 5}, "patience is for phases = 2 alone"),
        ({"phases": 2, "validate_each_epoch": False}, "validate_each_epoch is for phases = 1 alone"),
    ],
)
def test_what_would_do_nothing_is_refused_in_one_line(fields, words):
    with pytest.raises(UserError, match=f"^fine-tuning: top level: {words}"):
        parse(FinetuneConfig, fields, "fine-tuning")
    with pytest.raises(UserError, match=f"^config: finetune: {words}"):
        parse(PipelineConfig, {"data": "digits", "finetune": fields}, "config")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"preset": "nat2"},
        {"preset": "nat2", "patience": 5},
        {"preset": "nat2", "method": "aep", "exit_weights": "mix"},
        {"method": "aep", "prune": ("latency", "params"), "prune_tolerance": 0.1, "measure": False},
        {"phases": 2, "patience": 5},
        {"validate_each_epoch": False},
    ],
)
def test_what_does_something_is_taken_and_as_it_is_stored_too(fields):
    config = parse(FinetuneConfig, fields, "fine-tuning")
    assert parse(FinetuneConfig, config.model_dump(mode="json"), "stored") == config
    pipeline = PipelineConfig(data="digits", finetune=config)
    assert PipelineConfig.model_validate(pipeline.model_dump()) == pipeline


def test_of_what_is_stored_only_what_did_nothing_is_left_out():
    held = FinetuneConfig(epochs=3.0).model_dump(mode="json")
    assert FinetuneConfig(**FinetuneConfig.stored({**held, "patience": 3})) == FinetuneConfig(epochs=3.0)
    assert FinetuneConfig.stored({**held, "phases": 2, "patience": 3})["patience"] == 3
    for damaged in ({**held, "epochs": "many"}, "text"):
        assert FinetuneConfig.stored(damaged) == damaged


@pytest.mark.parametrize("settings", [FinetuneConfig, SearchSettings, TrainConfig])
def test_batches_of_one_image_have_no_statistics(settings):
    assert settings(batch_size=2).batch_size == 2
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        settings(batch_size=1)
