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
    ],
)
def test_values_that_make_no_search_are_refused(wrong):
    with pytest.raises(ValidationError):
        SearchSettings(**wrong)


def test_objectives_are_named_as_in_budgets_or_as_metrics():
    given = SearchSettings(objectives=("latency@pi5", "memory", "latency_p99_ms@h200"))
    assert given.objectives == ("latency_ms@pi5", "memory_mb", "latency_p99_ms@h200")
