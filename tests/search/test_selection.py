"""Choosing candidates: in even steps of cost, or where the surrogate is unsure."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.search.gap_variance import GapProblem, KeepShared, Swap, of_each, select_even
from nat2deploy.search.selection import SUBSETS, Even, Greedy
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.subset import select_diverse

seeds = st.integers(0, 10_000)


def even(objectives, count, violations=None, known=None, seed=0, population=60, generations=25):
    violations = np.zeros(len(objectives)) if violations is None else violations
    known = np.empty((0, objectives.shape[1])) if known is None else known
    return select_even(
        objectives, violations, known, count, seed=seed, population=population, generations=generations
    ).tolist()


def mask(rows, size):
    return np.isin(np.arange(size), list(rows))[None]


@given(seeds, st.integers(1, 15), st.integers(1, 4), st.integers(0, 5))
def test_unevenness_is_the_largest_deviation_of_gaps(seed, rows, costs, front):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, rows + 1))
    table, known = rng.random((rows, costs)), rng.random((front, costs))
    problem = GapProblem(table, known, count)
    subsets = of_each(rng.random((6, rows)), np.full(6, count))
    span = np.ptp(np.concatenate([table, known]), axis=0)
    for subset, found in zip(subsets, problem.unevenness(subsets), strict=True):
        expected = [0.0]
        for c in range(costs):
            lying = sorted([*table[subset, c], *known[:, c]])
            gaps = [(b - a) / (span[c] or 1.0) for a, b in itertools.pairwise(lying)]
            expected.append(float(np.std(gaps)) if gaps else 0.0)
        assert found == pytest.approx(max(expected))


@given(seeds, st.integers(2, 20))
def test_offspring_hold_as_many_rows_and_what_parents_share(seed, size):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, size))
    parents = of_each(rng.random((8, size)), np.full(8, count)).reshape(2, 4, size)
    children = KeepShared()._do(None, parents, random_state=rng)
    assert children.shape == (1, 4, size) and (children.sum(axis=2) == count).all()
    assert (children[0] >= (parents[0] & parents[1])).all()
    assert (children[0] <= (parents[0] | parents[1])).all()
    mutants = Swap()._do(None, children[0], random_state=rng)
    assert (mutants.sum(axis=1) == count).all()
    assert ((mutants != children[0]).sum(axis=1) == 2).all()


@pytest.mark.parametrize("width", [2, 3])
def test_the_chosen_subset_is_near_the_best_there_is(width):
    rng = np.random.default_rng(4)
    objectives, known = rng.random((12, width)), rng.random((3, width))
    problem = GapProblem(objectives[:, 1:], known[:, 1:], 4)
    found = even(objectives, 4, known=known)
    all_of_them = [problem.unevenness(mask(rows, 12))[0] for rows in itertools.combinations(range(12), 4)]
    assert len(found) == 4
    assert problem.unevenness(mask(found, 12))[0] <= np.quantile(all_of_them, 0.01)


def test_gaps_of_the_archives_front_are_closed():
    costs = np.array([0.1, 0.2, 4.9, 5.1, 9.8])
    objectives = np.stack([np.zeros(5), costs], axis=1)
    known = np.array([[0.0, 0.0], [0.0, 2.5], [0.0, 7.5], [0.0, 10.0]])
    assert even(objectives, 1, known=known)[0] in (2, 3)


# Of exploration and exploitation; where they want more than all, exploration goes first.
shares = st.tuples(st.floats(0, 1), st.floats(0, 1))


@given(seeds, st.integers(1, 12), st.integers(0, 12), st.sampled_from(sorted(SUBSETS)), shares)
def test_no_infeasible_row_while_a_feasible_one_is_left(seed, count, feasible, name, shares):
    rng = np.random.default_rng(seed)
    objectives, spread = rng.random((12, 2)), rng.random(12)
    violations = np.where(np.arange(12) < feasible, 0.0, rng.random(12) + 0.01)
    greedy = {"exploration": shares[0], "exploitation": shares[1], "surrogate_ensemble": True}
    few = {"subset_population": 8, "subset_generations": 2}
    own = {"greedy": greedy, "gap-variance": few}
    settings = SearchSettings(subset=name, **own.get(name, {}))
    chosen = SUBSETS[name](settings).choose(
        objectives, violations, rng.random((3, 2)), spread, count, seed=seed
    )
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert (violations[chosen] == 0.0).sum() == min(count, feasible)


def test_where_few_are_feasible_the_least_violating_fill_up_then_the_most_accurate():
    objectives = np.array([[0.5, 1.0], [0.4, 2.0], [0.3, 3.0], [0.2, 4.0], [0.1, 5.0]])
    violations = np.array([0.0, 0.0, 0.5, 0.1, 0.5])
    assert sorted(even(objectives, 4, violations)) == [0, 1, 3, 4]


@pytest.mark.parametrize("name", SUBSETS)
def test_without_costs_the_lowest_errors_are_chosen(name):
    objectives = np.array([[0.5], [0.1], [0.4], [0.2]])
    chosen = SUBSETS[name](SearchSettings()).choose(
        objectives, np.zeros(4), objectives[:1], np.zeros(4), 2, seed=0
    )
    assert sorted(chosen.tolist()) == [1, 3]


@pytest.mark.parametrize("name", SUBSETS)
def test_nothing_to_choose_from(name):
    none = np.empty((0, 2))
    chosen = SUBSETS[name](SearchSettings()).choose(none, none[:, 0], none, none[:, 0], 3, seed=0)
    assert chosen.tolist() == []


def test_the_same_seed_chooses_the_same():
    objectives = np.random.default_rng(0).random((40, 3))
    assert even(objectives, 9, seed=3) == even(objectives, 9, seed=3)


def test_the_settings_reach_the_policies():
    greedy = SUBSETS["greedy"](
        SearchSettings(subset="greedy", surrogate_ensemble=True, exploration=0.3, exploitation=0.2)
    )
    by_gaps = SUBSETS["gap-variance"](
        SearchSettings(subset="gap-variance", subset_population=31, subset_generations=7)
    )
    assert isinstance(greedy, Greedy) and (greedy.exploration, greedy.exploitation) == (0.3, 0.2)
    assert isinstance(by_gaps, Even) and (by_gaps.population, by_gaps.generations) == (31, 7)


def test_exploration_goes_to_where_members_disagree():
    rng = np.random.default_rng(1)
    objectives, spread, nothing = rng.random((20, 2)), rng.random(20), np.zeros(20)
    known = rng.random((2, 2))
    chosen = Greedy(0.5).choose(objectives, nothing, known, spread, 6, seed=0).tolist()
    assert chosen[:3] == select_diverse(objectives, nothing, known, 3).tolist()
    left = [i for i in range(20) if i not in chosen[:3]]
    assert chosen[3:] == sorted(left, key=lambda i: -spread[i])[:3]
    plain = Greedy().choose(objectives, nothing, known, spread, 6, seed=0)
    assert plain.tolist() == select_diverse(objectives, nothing, known, 6).tolist()


def test_exploitation_goes_to_the_lowest_errors_and_the_rest_keeps_away_from_them():
    rng = np.random.default_rng(2)
    objectives, nothing, known = rng.random((20, 2)), np.zeros(20), rng.random((2, 2))
    chosen = Greedy(exploitation=0.5).choose(objectives, nothing, known, nothing, 6, seed=0).tolist()
    lowest = np.argsort(objectives[:, 0])[:3].tolist()
    assert chosen[:3] == lowest
    left = np.setdiff1d(np.arange(20), lowest)
    others = select_diverse(objectives[left], nothing[left], np.concatenate([known, objectives[lowest]]), 3)
    assert chosen[3:] == left[others].tolist()
