"""The authors' numbers, written out once more: a changed preset is no longer theirs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.search.presets import PRESETS
from nat2deploy.search.settings import SearchSettings

# What differs between the two, then what they share.
TABLE = [
    ("archive_size", 100, 300),
    ("initialisation", "uniform-genes", "uniform-depth"),
    ("repair", "push", "fill"),
    ("preprocessing_factor", 1, 10),
    ("candidates", 8, 25),
    ("rounds", 30, 30),
    ("update", "grow", "constant-size"),
    ("top", 150, 150),
    ("adapt_epochs", 5, 5),
    ("surrogate_features", "one-hot", "integer"),
]
SHARED = [
    ("reevaluate", True),
    ("accuracy_only", False),
    ("surrogates", ("lightgbm",)),
    ("surrogate_folds", 10),
    ("surrogate_ensemble", True),
    ("surrogate_costs", False),
    ("surrogate_target", "error"),
    ("surrogate_learns", "archive"),
    ("first_archive", None),
    ("passed_exits", False),
    ("batch_candidates", None),
    ("searcher", "by-objectives"),
    ("population", 100),
    ("generations", 20),
    ("sampling", "lhs"),
    ("crossover", 0.9),
    ("mutation_eta", 1.0),
    ("subset", "gap-variance"),
    ("subset_population", 500),
    ("subset_generations", 200),
    ("distribution", "continuous"),
    ("adapt_learning_rate", 2.5e-3),
    ("adapt_weight_decay", 3e-4),
    ("adapt_clip", 5.0),
    ("adapt_subnets", 4),
    ("batch_size", 256),
    ("warmup", "three-phase"),
    ("warmup_epochs", 150),
    ("warmup_learning_rate", 7.5e-3),
    ("warmup_subnets", 4),
    ("warmup_full_epochs", None),  # 100: see test_warm_up.py
    ("exit_weights", "descending"),
    ("label_smoothing", 0.0),
    ("recalibration_images", 960),
    ("tradeoff_points", 4),
]


@pytest.mark.parametrize(("setting", "nat", "nat2"), TABLE)
def test_nat_and_nat2_differ_as_published(setting, nat, nat2):
    assert getattr(SearchSettings(preset="nat"), setting) == nat
    assert getattr(SearchSettings(preset="nat2"), setting) == nat2


@pytest.mark.parametrize("preset", ["nat", "nat2"])
@pytest.mark.parametrize(("setting", "value"), SHARED)
def test_nat_and_nat2_share_the_rest(preset, setting, value):
    assert getattr(SearchSettings(preset=preset), setting) == value


@pytest.mark.parametrize("preset", ["nat", "nat2"])
def test_every_number_of_a_preset_is_asserted_here(preset):
    asserted = {row[0] for row in (*TABLE, *SHARED)}
    assert set(PRESETS[preset]) <= asserted


def test_ours_are_the_defaults():
    assert SearchSettings(preset="ours") == SearchSettings()
    assert PRESETS["ours"] == {}


def test_fixed_leaves_the_weights_as_they_are_and_differs_from_ours_in_all_that_it_names():
    fixed, ours = SearchSettings(preset="fixed"), SearchSettings()
    assert (fixed.adapt_epochs, fixed.reevaluate) == (0.0, False)
    assert all(getattr(fixed, name) != getattr(ours, name) for name in PRESETS["fixed"])


def test_what_is_given_goes_before_the_preset():
    settings = SearchSettings(preset="nat2", rounds=3, surrogates=("ridge",))
    assert (settings.rounds, settings.surrogates, settings.archive_size) == (3, ("ridge",), 300)


@pytest.mark.parametrize("preset", PRESETS)
def test_written_whole_and_read_again_they_are_the_same(preset):
    settings = SearchSettings(preset=preset, rounds=3)
    assert SearchSettings.model_validate(settings.model_dump(mode="json", exclude_none=True)) == settings


@pytest.mark.parametrize("wrong", ["nat3", "", 2, None])
def test_another_preset_is_refused(wrong):
    with pytest.raises(ValidationError, match="preset"):
        SearchSettings(preset=wrong)


def test_settings_that_are_no_table_are_refused_in_one_line():
    with pytest.raises(UserError, match="settings"):
        parse(SearchSettings, [1], "settings")
