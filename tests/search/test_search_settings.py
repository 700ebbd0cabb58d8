"""Settings refuse what a search cannot be run with."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from nat2deploy.search import settings
from nat2deploy.search.distribution import DISTRIBUTIONS
from nat2deploy.search.initialisation import INITIALISATIONS
from nat2deploy.search.searchers import SEARCHERS
from nat2deploy.search.selection import SUBSETS
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.surrogate import SURROGATES
from nat2deploy.search.update import UPDATES


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("initialisation", INITIALISATIONS),
        ("update", UPDATES),
        ("distribution", DISTRIBUTIONS),
        ("searcher", SEARCHERS),
        ("subset", SUBSETS),
    ],
)
def test_every_policy_can_be_named_and_no_other(field, names):
    for name in names:
        assert getattr(SearchSettings(**{field: name}), field) == name
    with pytest.raises(ValidationError, match=field):
        SearchSettings(**{field: "other"})


def test_settings_and_registries_have_the_same_names():
    """Settings say names without loading what stands behind them."""
    assert sorted(settings.SURROGATES) == sorted(SURROGATES)
    assert sorted(settings.INITIALISATIONS) == sorted(INITIALISATIONS)
    assert sorted(settings.UPDATES) == sorted(UPDATES)
    assert sorted(settings.SEARCHERS) == sorted(SEARCHERS)
    assert sorted(settings.SUBSETS) == sorted(SUBSETS)
    assert sorted(settings.DISTRIBUTIONS) == sorted(DISTRIBUTIONS)


def test_every_surrogate_can_be_named_and_no_other():
    assert SearchSettings(surrogates=tuple(SURROGATES)).surrogates == tuple(SURROGATES)
    with pytest.raises(ValidationError):
        SearchSettings(surrogates=("crystal-ball",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"archive_size": 3},
        {"candidates": 0},
        {"rounds": 0},
        {"population": 7},
        {"seed": -1},
        {"adapt_epochs": -0.1},
        {"adapt_learning_rate": 0.0},
        {"validation_images": 0},
        {"surrogates": ()},
        {"speed": 1},
        {"objectives": ("top1",)},
        {"objectives": ("latency@",)},
        {"objectives": ("macs",), "accuracy_only": True},
        {"surrogate_folds": 1},
        {"preprocessing_factor": 0},
        {"crossover": 1.1},
        {"mutation_eta": 0.0},
        {"repair": "pull"},
        {"exploration": 1.5},
        {"exploration": 0.2, "subset": "greedy", "surrogate_ensemble": False},
        {"exploration": 0.2, "subset": "gap-variance", "surrogate_ensemble": True},
        {"exploitation": 0.2, "subset": "expected-improvement"},
        {"first_archive": 3},
        {"exploitation": -0.1},
        {"subset_population": 3},
        {"warmup_full_epochs": 2.0},
        {"preset": "nat2", "warmup": "uniform", "warmup_full_epochs": 2.0},
        {"halving_risk": 0.1},
        {"subset_population": 100},
        {"subset": "greedy", "subset_generations": 100},
    ],
)
def test_values_that_make_no_search_are_refused(wrong):
    with pytest.raises(ValidationError):
        SearchSettings(**wrong)


@pytest.mark.parametrize(
    "works",
    [
        {"warmup": "three-phase", "warmup_full_epochs": 2.0},
        {"halving_images": 100, "halving_risk": 0.1},
        {"subset": "gap-variance", "subset_population": 100, "subset_generations": 10},
        {"preset": "nat", "subset": "greedy"},
        {"preset": "nat2", "subset": "expected-improvement", "subset_population": 100},
        {"preset": "nat", "warmup": "uniform"},
    ],
)
def test_what_takes_effect_or_is_the_presets_own_may_stand(works):
    settings = SearchSettings(**works)
    assert SearchSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_what_takes_no_effect_is_refused_with_what_it_needs():
    with pytest.raises(ValidationError, match="halving_risk needs halving_images"):
        SearchSettings(halving_risk=0.1)


def test_objectives_are_named_as_in_budgets_or_as_metrics():
    given = SearchSettings(objectives=("latency@pi5", "memory", "latency_p99_ms@h200"))
    assert given.objectives == ("latency_ms@pi5", "memory_mb", "latency_p99_ms@h200")
