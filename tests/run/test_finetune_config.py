"""NAT2's post-processing by name, line by line, and what is refused."""

import pytest
from pydantic import ValidationError

from nat2deploy.run.finetune_config import FinetuneConfig


def test_the_preset_has_the_numbers_of_the_paper():
    config = FinetuneConfig(preset="nat2")
    assert (config.phases, config.patience, config.epochs) == (2, 30, 150.0)
    assert (config.learning_rate, config.final_rate, config.batch_size) == (1e-4, 1e-8, 64)
    assert (config.optimiser, config.weight_decay) == ("by-exits", 5e-4)
    assert (config.exit_weights, config.prune) == ("unif", ("none",))
    assert (config.warmup_epochs, config.clip, config.label_smoothing, config.distil) == (0, 0, 0, False)


def test_what_is_given_goes_before_the_preset():
    config = FinetuneConfig(preset="nat2", epochs=3.0, prune=("latency",))
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
