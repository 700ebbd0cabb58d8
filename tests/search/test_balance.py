"""How many candidates a round judges."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.search.balance import FIXED_WEIGHTS, candidates_of
from nat2deploy.search.presets import PRESETS
from nat2deploy.search.settings import SearchSettings


def sizes(train, validation):
    return SimpleNamespace(train=range(train), validation=range(validation))


def settings(**given):
    base = {"archive_size": 30, "adapt_epochs": 0.5, "adapt_subnets": 2, "recalibration_images": 1000}
    return SearchSettings(**{**base, "validation_images": 2000, **given})


def test_as_many_as_an_adaptation_and_judging_the_archive_again_take():
    # Half of 60,000 images pass two networks at three times the work, and the teacher once; each judged one takes 3,000.
    assert candidates_of(settings(), sizes(60_000, 9_000)) == 30_000 * 7 // 3_000 + 30


def test_an_archive_that_is_not_judged_again_takes_nothing():
    assert candidates_of(settings(reevaluate=False), sizes(60_000, 9_000)) == 70


def test_images_that_are_not_there_are_not_counted():
    few = candidates_of(settings(validation_images=None, adapt_epochs=1.0), sizes(500, 200))
    assert few == 500 * 7 // 700 + 30


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_number_that_is_given_holds(preset):
    assert candidates_of(SearchSettings(preset=preset, candidates=3), sizes(60_000, 9_000)) == 3


def test_where_weights_stay_it_is_a_fixed_number():
    assert candidates_of(settings(adapt_epochs=0), sizes(60_000, 9_000)) == FIXED_WEIGHTS


@given(
    st.integers(1, 10**6), st.integers(1, 10**5), st.floats(1e-3, 50), st.integers(1, 8), st.integers(4, 500)
)
def test_there_is_always_one_and_more_training_never_means_fewer(train, validation, epochs, subnets, archive):
    def count(epochs):
        given = settings(
            adapt_epochs=epochs, adapt_subnets=subnets, archive_size=archive, validation_images=None
        )
        return candidates_of(given, sizes(train, validation))

    assert 1 <= count(epochs) <= count(2 * epochs)
