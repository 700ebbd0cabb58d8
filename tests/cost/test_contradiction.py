"""Whether fresh errors are larger than certified ones by more than chance."""

import numpy as np
import pytest
from cost_tables import make_measured_table, make_networks

from nat2deploy.cost.contradiction import certified_errors, contradicts, relative_errors
from nat2deploy.space.search_space import load_space


@pytest.fixture(scope="module")
def space():
    return load_space("nano").restrict(resolutions=(28,))


@pytest.fixture(scope="module")
def table(space):
    return make_measured_table(space)


def errors(mean, count, seed=0):
    drawn = np.abs(np.random.default_rng(seed).standard_normal(count))
    return drawn * mean / drawn.mean()


@pytest.mark.parametrize(
    ("fresh", "expected"),
    [
        (errors(0.05, 50, 1), True),  # far from twice, and sure
        (errors(0.03, 50, 1), False),
        (np.array([0.01, 0.012, 0.02, 0.17]), False),  # one that was disturbed
        (np.array([0.11, 0.12, 0.10, 0.09]), True),  # four that agree
    ],
)
def test_chance_is_told_from_a_contradiction(table, fresh, expected):
    assert contradicts(table.certificate, errors(0.03, 50), fresh) is expected


def test_two_per_cent_are_fine_and_four_against_four_can_be_enough(table):
    assert not contradicts(table.certificate, np.full(50, 0.001), np.full(50, 0.0199))
    four = np.array([0.01, 0.011, 0.012, 0.013])
    assert contradicts(table.certificate, four, four + 0.05)
    assert not contradicts(table.certificate, four, np.array([0.012, 0.05, 0.06, 0.07]))


def test_of_forgotten_networks_twice_the_mean_counts(table):
    certificate = table.certificate.model_copy(update={"mape": 0.02})
    assert contradicts(certificate, np.empty(0), np.full(8, 0.041))
    assert not contradicts(certificate, np.empty(0), np.full(8, 0.039))


def test_errors_are_those_of_the_certificate(table, space):
    found = certified_errors(table, space)
    assert found.mean() == pytest.approx(table.certificate.mape) and len(found) == 8
    assert len(certified_errors(table, load_space("nano").restrict(resolutions=(64,)))) == 0
    assert len(certified_errors(table.model_copy(update={"networks": table.networks[:15]}), space)) == 0
    slower = make_networks(space, 8, "held-out", seed=3, slower=1.25)
    assert relative_errors(table, space, slower) == pytest.approx(0.2, abs=0.01)
