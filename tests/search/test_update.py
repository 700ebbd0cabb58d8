"""What the archive becomes after a round."""

from __future__ import annotations

import itertools

import pytest

from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.search.archive import Evaluation
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.update import (
    UPDATES,
    ArchiveUpdate,
    best,
    from_its_ends,
    objective_matrix,
    violation_vector,
)
from nat2deploy.space.encoding import IntegerEncoding


@pytest.fixture
def objectives(encoding) -> Objectives:
    return Objectives(CostModel(encoding.space, 10, None), encoding, parse_budgets(["macs<=100"]))


@pytest.fixture
def judge(encoding: IntegerEncoding):
    """An evaluation of the n-th architecture by its gene, with made-up values."""
    genes = [encoding.lower.copy() for _ in range(12)]
    for number, row in enumerate(genes):
        row[2], row[4] = 1 + number % 4, 1 + number // 4

    def make(number, top1, macs, version=0, role="archive"):
        return Evaluation(encoding.decode(genes[number]), version, role, 1.0, {"top1": top1, "macs": macs})

    return make


def merge(name, archive, candidates, objectives, size):
    return UPDATES[name]().merge(archive, candidates, objectives, size=size, seed=0, directions=None)


def test_grow_keeps_all_oldest_first(judge, objectives):
    archive = [judge(0, 0.1, 50.0), judge(1, 0.2, 500.0)]
    candidates = [judge(2, 0.3, 60.0), judge(3, 0.05, 99.0)]
    assert merge("grow", archive, candidates, objectives, size=2) == archive + candidates


def test_a_candidate_of_the_archive_is_no_second_member(judge, objectives):
    again = judge(0, 0.4, 50.0, role="candidate")
    merged = merge("grow", [judge(0, 0.1, 50.0), judge(1, 0.2, 60.0)], [again], objectives, size=9)
    assert [e.architecture for e in merged] == [judge(0, 0, 0).architecture, judge(1, 0, 0).architecture]
    assert merged[0] is again


@pytest.mark.parametrize("kept", [[], None, "made up"])
def test_an_update_keeps_some_of_what_it_was_given(judge, objectives, kept):
    class Broken(ArchiveUpdate):
        def _merge(self, merged, objectives, **options):
            return [judge(5, 1.0, 1.0)] if kept == "made up" else kept

    told = "others than the 2" if kept else "none of the 2"
    with pytest.raises(UserError, match=f"archive update Broken returned {told} evaluations"):
        Broken().merge(
            [judge(0, 0.1, 50.0)], [judge(1, 0.2, 60.0)], objectives, size=2, seed=0, directions=None
        )


def test_what_an_update_returns_is_put_in_order(judge, objectives):
    class Backwards(ArchiveUpdate):
        def _merge(self, merged, objectives, **options):
            return [merged[2], merged[0], merged[0]]

    archive = [judge(0, 0.1, 50.0), judge(1, 0.2, 60.0), judge(2, 0.3, 70.0)]
    kept = Backwards().merge(archive, [], objectives, size=2, seed=0, directions=None)
    assert kept == [archive[0], archive[2]]


def test_constant_size_keeps_the_best_in_their_order(judge, objectives):
    archive = [judge(0, 0.1, 90.0), judge(1, 0.9, 99.0), judge(2, 0.95, 101.0)]
    candidates = [judge(3, 0.5, 50.0), judge(4, 0.2, 80.0)]
    kept = merge("constant-size", archive, candidates, objectives, size=2)
    assert kept == [archive[1], candidates[0]]  # 2 is over the budget, 0 and 4 are dominated
    assert merge("constant-size", archive, candidates, objectives, size=9) == archive + candidates


def test_the_least_violating_stay_when_too_few_are_feasible(judge, objectives):
    archive = [judge(0, 0.9, 300.0), judge(1, 0.1, 100.0), judge(2, 0.5, 110.0)]
    assert best(archive, objectives, 2, seed=0, directions=None) == archive[1:]


def test_objectives_and_violations_of_evaluations(judge, objectives):
    evaluations = [judge(0, 0.75, 50.0), judge(1, 0.5, 150.0)]
    assert objective_matrix(evaluations, objectives).tolist() == [[0.25, 50.0], [0.5, 150.0]]
    assert violation_vector(evaluations, objectives).tolist() == [0.0, 0.5]
    assert objective_matrix([], objectives).shape == (0, 2)
    assert violation_vector([], objectives).shape == (0,)


def test_an_empty_archive_stays_empty(objectives):
    assert best([], objectives, 4, seed=0, directions=None) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9, 60])
def test_from_its_ends_any_part_spans_the_whole(count):
    order = from_its_ends(range(count))
    assert sorted(order) == [*range(count)]
    for part in range(2, count + 1):
        gaps = [after - before for before, after in itertools.pairwise(sorted(order[:part]))]
        assert {0, count - 1} <= set(order[:part]) and max(gaps) <= 4 * (count - 1) / (part - 1)


def test_from_its_ends_as_it_is():
    assert from_its_ends("abcde") == [*"aecbd"]
