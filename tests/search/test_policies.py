"""Whole searches under other policies than the defaults: what they keep, and that a kill changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from small_searches import SETTINGS, Listener, lines, result

from nat2deploy.search import distribution
from nat2deploy.search.archive import ArchiveFile, Evaluation
from nat2deploy.search.nat2 import Nat2Search
from nat2deploy.search.update import best

POLICIES = {
    "pre-processed": {"initialisation": "uniform-depth", "preprocessing_factor": 3},
    "never judged again": {"reevaluate": False},
    "grown, never judged again": {"update": "grow", "reevaluate": False, "preprocessing_factor": 2},
    "pushed": {"initialisation": "uniform-genes", "repair": "push", "update": "grow", "sampling": "lhs"},
    "by NSGA-II": {"searcher": "nsga2", "surrogates": ("rbf", "k-nn"), "surrogate_folds": 3},
    "fitted": {"distribution": "continuous", "surrogates": ("svr",), "surrogate_ensemble": False},
    "stratified": {"initialisation": "stratified", "objectives": ("macs", "params")},
    "in even steps": {"subset": "gap-variance", "subset_population": 20, "subset_generations": 5},
    "apart in cost": {"subset": "greedy"},
    "exploring": {
        "subset": "greedy",
        "exploration": 0.67,
        "surrogates": ("decision-tree",),
        "surrogate_ensemble": True,
    },
    "in batches": {"batch_candidates": 2},
    "from few": {"first_archive": 4, "batch_candidates": 1, "reevaluate": False},
    "of errors, costs unseen": {"surrogate_costs": False, "surrogate_target": "error"},
    "accuracy alone": {"accuracy_only": True, "searcher": "by-objectives"},
}
SEARCHES = {"default": {}, "from a small archive": {"first_archive": 4, "candidates": 2}, **POLICIES}


@pytest.fixture(scope="module", autouse=True)
def few_families():
    """Three families in place of a hundred: the fits take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribution, "families", lambda: ["norm", "expon", "uniform"])
        distribution._least_squares.cache_clear()
        yield
    distribution._least_squares.cache_clear()


def preset(name):
    """The settings of a preset, but for its sizes and epochs."""
    sizes = SETTINGS.model_dump(
        include={"archive_size", "candidates", "rounds", "population", "generations", "top", "warmup_epochs",
                 "adapt_epochs", "batch_size", "recalibration_images", "validation_images"}
    )  # fmt: skip
    if name == "fixed":
        sizes["adapt_epochs"] = 0.0
    few = {"surrogate_folds": 3}
    if name in ("nat", "nat2"):
        few |= {"subset_population": 8, "subset_generations": 2}
    return type(SETTINGS)(preset=name, **sizes, **few)


def settings_of(name):
    if name not in SEARCHES:
        return preset(name)
    return type(SETTINGS).model_validate({**SETTINGS.model_dump(), **SEARCHES[name]})


class Whole(NamedTuple):
    """A search that nobody disturbed, and what it left."""

    search: Nat2Search
    archive: list[Evaluation]
    file: ArchiveFile
    folder: Path


@pytest.fixture(scope="module")
def whole(begin, tmp_path_factory, space):
    """What a policy's undisturbed search leaves; it is run when first asked for, and for all tests here."""

    @cache
    def left_alone(name):
        folder = tmp_path_factory.mktemp("whole")
        search = begin(folder, settings=settings_of(name))
        archive = search.run()
        return Whole(search, archive, ArchiveFile(folder / "archive.jsonl", space), folder)

    return left_alone


def roles(file, version):
    return Counter(e.role for e in file.of_version(version))


@pytest.mark.parametrize("name", [*POLICIES, "fixed", "nat", "nat2"])
def test_ended_again_and_again_it_ends_the_same(begin, whole, tmp_path, killed, name):
    ends = 0
    for moment in range(3, 900, {"nat": 16, "nat2": 16, "fixed": 8}.get(name, 12)):
        listener = Listener(lambda _, n, moment=moment: n == moment, killed)
        try:
            again = begin(tmp_path, settings=settings_of(name), listener=listener).run()
        except killed:
            ends += 1
        else:
            break
    assert ends > 2
    assert again == whole(name).archive
    assert result(tmp_path) == result(whole(name).folder)


def test_of_many_draws_the_best_become_the_archive(whole, space):
    search, _, file, _ = whole("pre-processed")
    assert roles(file, 0) == {"drawn": 21, "candidate": 3}
    assert roles(file, 1) == {"archive": 7, "candidate": 3}
    drawn = [e for e in file.of_version(0) if e.role == "drawn"]
    first = search.rounds.archive(0)
    assert len(first) == 7 and {e.architecture for e in first} <= {e.architecture for e in drawn}
    extremes = {space.smallest(), space.largest()}
    assert extremes <= {e.architecture for e in first}
    others = [e for e in drawn if e.architecture not in extremes]
    assert first[2:] == best(others, search.objectives, 5, seed=0, directions=search.rounds.directions)
    candidates = {e.architecture for e in file.of_version(0) if e.role == "candidate"}
    assert not candidates & {e.architecture for e in drawn}
    assert [entry["evaluations"] for entry in search.history] == [21, 31, 41]


def test_a_small_first_archive_grows_to_its_size(whole):
    _, archive, file, _ = whole("from a small archive")
    assert [roles(file, version)["archive"] for version in (0, 1, 2)] == [4, 6, 7]
    assert len(archive) == 7


def test_without_re_evaluation_members_keep_their_first_judgement(whole):
    search, archive, file, _ = whole("never judged again")
    assert [roles(file, version) for version in (0, 1, 2)] == [
        {"archive": 7, "candidate": 3},
        {"candidate": 3},
        {},
    ]
    assert len(archive) == 7 and {e.version for e in archive} <= {0, 1}
    assert {e.architecture.id for e in search.front()} <= {e.architecture.id for e in archive}
    assert [entry["evaluations"] for entry in search.history] == [7, 10, 13]


def test_a_grown_archive_keeps_everything(whole):
    _, archive, file, _ = whole("grown, never judged again")
    kept = [e for e in file.evaluations if e.role == "candidate"]
    assert len(archive) == 7 + len(kept)
    assert {e.architecture for e in kept} <= {e.architecture for e in archive}


def test_a_grown_archive_is_judged_again_whole(whole):
    _, archive, file, _ = whole("pushed")
    assert [roles(file, version)["archive"] for version in (0, 1, 2)] == [7, 10, 13]
    assert len(archive) == 13


def test_accuracy_alone_returns_the_most_accurate(whole):
    search = whole("accuracy alone").search
    assert len(search.objectives) == 1 and search.objectives.metrics == ()
    front = search.front()
    assert {e.error for e in front} == {min(e.error for e in search.rounds.seen(2))}
    assert all(0.0 <= entry["hypervolume"] <= 1.0 for entry in search.history)


def test_another_policy_is_another_search(whole):
    """Each policy changes what is evaluated: none is a name without a deed."""
    found = {
        name: tuple(json.loads(line)["id"] for line in lines(whole(name).folder))
        for name in ("default", *POLICIES)
    }
    assert len(set(found.values())) == len(found)
