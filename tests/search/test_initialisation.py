"""The first archive: distinct, whole in its extremes, within the budgets and spread over the cost."""

from __future__ import annotations

import numpy as np
import pytest

from nat2deploy.cost.model import CostModel
from nat2deploy.search.budget import feasible, parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.initialisation import INITIALISATIONS

CLASSES = 10


@pytest.fixture(scope="module")
def objectives_of(wide_encoding):
    """Objectives on the wide space for budgets as text."""

    def make(*budgets: str) -> Objectives:
        return Objectives(
            CostModel(wide_encoding.space, CLASSES, None), wide_encoding, parse_budgets(list(budgets))
        )

    return make


def draw(name, objectives, count, seed=0):
    return INITIALISATIONS[name]().draw(objectives, np.random.default_rng(seed), count)


def macs(objectives, architectures):
    return objectives.costs(objectives.encoding.encode_all(architectures))["macs"]


@pytest.fixture(scope="module")
def quarter(objectives_of) -> float:
    """MACs that a quarter of random architectures stay under."""
    drawn = draw("uniform-depth", objectives_of(), 200)
    return float(np.quantile(macs(objectives_of(), drawn), 0.25))


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_distinct_as_many_as_asked_and_both_extremes(name, objectives_of, wide_encoding):
    drawn = draw(name, objectives_of(), 40)
    assert len(drawn) == len(set(drawn)) == 40
    space = wide_encoding.space
    assert all(space.contains(architecture) for architecture in drawn)
    assert {space.smallest(), space.largest()} <= set(drawn)


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_the_same_numbers_draw_the_same(name, objectives_of):
    assert draw(name, objectives_of(), 12, seed=3) == draw(name, objectives_of(), 12, seed=3)
    assert draw(name, objectives_of(), 12, seed=3) != draw(name, objectives_of(), 12, seed=4)


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_the_cheapest_of_every_budgeted_metric_is_in(name, objectives_of):
    objectives = objectives_of("macs<=100M", "params<=10M")
    drawn = draw(name, objectives, 12)
    assert objectives.model.cheapest("macs")[0] in drawn
    assert objectives.model.cheapest("params")[0] in drawn


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_a_space_with_fewer_gives_what_it_has(name, space, encoding):
    few = space.model_copy(update={"depths": (1,), "kernels": (3,)})
    small = type(encoding)(few)
    objectives = Objectives(CostModel(few, CLASSES, None), small, ())
    drawn = draw(name, objectives, 50)
    assert len(drawn) == len(set(drawn)) == 4  # two expansions in each of two stages


def test_within_budgets_keeps_them_and_spreads_over_the_cost(objectives_of, quarter, wide_encoding):
    objectives = objectives_of(f"macs<={quarter:.0f}")
    drawn = draw("within-budgets", objectives, 60)
    costs = dict(zip(drawn, macs(objectives, drawn), strict=True))
    largest = wide_encoding.space.largest()
    outside = [a for a, cost in costs.items() if not feasible(objectives.budgets, {"macs": cost})]
    assert outside == [largest]
    inside = np.array([cost for a, cost in costs.items() if a != largest])
    low, high = macs(objectives, [wide_encoding.space.smallest()])[0], quarter
    shares = np.histogram(inside, bins=6, range=(low, high))[0] / len(inside)
    assert shares[1:].min() > 0.06  # the very cheapest are rare in the space
    plain = draw("uniform-depth", objectives, 600)
    plain_costs = macs(objectives, plain)
    plain_shares = np.histogram(plain_costs[plain_costs <= high], bins=6, range=(low, high))[0]
    assert shares.std() < 0.7 * (plain_shares / plain_shares.sum()).std()


def test_without_budgets_within_budgets_only_spreads(objectives_of, wide_encoding):
    objectives = objectives_of()
    costs = macs(objectives, draw("within-budgets", objectives, 60))
    plain = macs(objectives, draw("uniform-depth", objectives, 60))
    assert costs.std() > 1.2 * plain.std()


def test_a_tight_budget_is_filled_up_with_the_least_violating(objectives_of, wide_encoding):
    smallest = wide_encoding.space.smallest()
    limit = float(macs(objectives_of(), [smallest])[0])
    objectives = objectives_of(f"macs<={limit:.0f}")  # the smallest alone keeps it
    drawn = draw("within-budgets", objectives, 20)
    assert len(set(drawn)) == 20
    usual = np.median(macs(objectives, draw("uniform-depth", objectives, 100)))
    assert np.quantile(macs(objectives, drawn), 0.9) < 0.5 * usual


def test_depths_are_fair_in_the_architecture_space_and_deep_in_the_genes(objectives_of):
    def share(name, depth):
        drawn = draw(name, objectives_of(), 500)
        return np.mean([[d == depth for d in architecture.depths] for architecture in drawn])

    # One to four layers, each beyond the first absent with 1/3, cut at the first absent one.
    for depth, expected in {1: 1 / 3, 2: 2 / 9, 3: 4 / 27, 4: 8 / 27}.items():
        assert share("uniform-depth", depth) == pytest.approx(expected, abs=0.05)
    # Each of nine values present, one absent: a layer is missing with 1/10, pushed to the end.
    for depth, expected in {1: 0.001, 2: 0.027, 3: 0.243, 4: 0.729}.items():
        assert share("uniform-genes", depth) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_push_keeps_more_layers_than_fill(name, objectives_of):
    objectives = objectives_of()
    depths = {}
    for repair in ("push", "fill"):
        drawn = INITIALISATIONS[name](repair).draw(objectives, np.random.default_rng(0), 200)
        depths[repair] = np.mean([architecture.depths for architecture in drawn])
    assert depths["push"] > depths["fill"] + 0.1


def test_strata_lie_over_every_cost_axis(objectives_of):
    base = objectives_of()
    objectives = Objectives(base.model, base.encoding, (), ("macs", "params"))

    def filled(name, metric):
        """How many of twenty even steps of a cost the archive touches."""
        drawn = draw(name, objectives, 60)
        costs = objectives.costs(objectives.encoding.encode_all(drawn))[metric]
        return len(np.unique(np.digitize(costs, np.linspace(costs.min(), costs.max(), 20))))

    assert filled("stratified", "params") >= filled("within-budgets", "params")
    for metric in ("macs", "params"):
        assert filled("stratified", metric) > filled("uniform-depth", metric)


def test_one_axis_is_stratified_as_within_budgets_spreads(objectives_of):
    assert draw("stratified", objectives_of(), 30) == draw("within-budgets", objectives_of(), 30)


def test_accuracy_alone_still_spreads_over_what_budgets_limit(objectives_of, quarter):
    base = objectives_of(f"macs<={quarter:.0f}")
    alone = Objectives(base.model, base.encoding, base.budgets, accuracy_only=True)
    assert draw("within-budgets", alone, 30) == draw("within-budgets", base, 30)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_more_axes_than_draws(count):
    costs = np.random.default_rng(0).random((50, 4))
    spread = INITIALISATIONS["stratified"]()._spread(costs, count)
    assert 1 <= len(spread) == len(set(spread)) <= count
