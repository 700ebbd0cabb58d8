"""Whole searches under other policies than the defaults: what they keep, and that a kill changes nothing."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from small_searches import SETTINGS, Listener, lines, result

from nat2deploy.search import distribution
from nat2deploy.search.archive import ArchiveFile
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
    "by what is expected": {"subset": "expected-improvement"},
    "exploring": {
        "subset": "greedy",
        "exploration": 0.67,
        "surrogates": ("decision-tree",),
        "surrogate_ensemble": True,
    },
    "in batches": {"batch_candidates": 2},
    "from few": {"first_archive": 4, "batch_candidates": 1, "reevaluate": False},
    "of costs": {"surrogate_costs": True, "surrogate_target": "log-error"},
    "accuracy alone": {"accuracy_only": True, "searcher": "by-objectives"},
}


@pytest.fixture(autouse=True)
def few_families(monkeypatch):
    """Three families in place of a hundred: the fits take seconds."""
    monkeypatch.setattr(distribution, "families", lambda: ["norm", "expon", "uniform"])
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
    few = {"subset_population": 8, "subset_generations": 2, "surrogate_folds": 3}
    return type(SETTINGS)(preset=name, **sizes, **few)


def settings_of(**changes):
    return type(SETTINGS).model_validate({**SETTINGS.model_dump(), **changes})


@pytest.fixture
def searched(begin, tmp_path, space):
    """Run a search with changed settings; returns it, its last archive and its file."""

    def run(**changes):
        search = begin(tmp_path, settings=settings_of(**changes))
        return search, search.run(), ArchiveFile(tmp_path / "archive.jsonl", space)

    return run


def roles(file, version):
    return Counter(e.role for e in file.of_version(version))


@pytest.mark.parametrize("name", [*POLICIES, "fixed", "nat", "nat2"])
def test_ended_again_and_again_it_ends_the_same(begin, tmp_path, killed, name):
    settings = settings_of(**POLICIES[name]) if name in POLICIES else preset(name)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    archive = begin(whole, settings=settings).run()
    ends = 0
    for moment in range(3, 900, 13 if name in ("nat", "nat2") else 5):
        listener = Listener(lambda _, n, moment=moment: n == moment, killed)
        try:
            again = begin(cut, settings=settings, listener=listener).run()
        except killed:
            ends += 1
        else:
            break
    assert ends > 2
    assert again == archive
    assert result(cut) == result(whole)


def test_of_many_draws_the_best_become_the_archive(searched, space):
    search, _, file = searched(**POLICIES["pre-processed"])
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


def test_a_small_first_archive_grows_to_its_size(searched):
    _, archive, file = searched(first_archive=4, candidates=2)
    assert [roles(file, version)["archive"] for version in (0, 1, 2)] == [4, 6, 7]
    assert len(archive) == 7


def test_without_re_evaluation_members_keep_their_first_judgement(searched):
    search, archive, file = searched(**POLICIES["never judged again"])
    assert [roles(file, version) for version in (0, 1, 2)] == [
        {"archive": 7, "candidate": 3},
        {"candidate": 3},
        {},
    ]
    assert len(archive) == 7 and {e.version for e in archive} <= {0, 1}
    assert {e.architecture.id for e in search.front()} <= {e.architecture.id for e in archive}
    assert [entry["evaluations"] for entry in search.history] == [7, 10, 13]


def test_a_grown_archive_keeps_everything(searched):
    _, archive, file = searched(**POLICIES["grown, never judged again"])
    kept = [e for e in file.evaluations if e.role == "candidate"]
    assert len(archive) == 7 + len(kept)
    assert {e.architecture for e in kept} <= {e.architecture for e in archive}


def test_a_grown_archive_is_judged_again_whole(searched):
    _, archive, file = searched(**POLICIES["pushed"])
    assert [roles(file, version)["archive"] for version in (0, 1, 2)] == [7, 10, 13]
    assert len(archive) == 13


def test_accuracy_alone_returns_the_most_accurate(searched):
    search, *_ = searched(**POLICIES["accuracy alone"])
    assert len(search.objectives) == 1 and search.objectives.metrics == ()
    front = search.front()
    assert {e.error for e in front} == {min(e.error for e in search.rounds.seen(2))}
    assert all(0.0 <= entry["hypervolume"] <= 1.0 for entry in search.history)


def test_another_policy_is_another_search(begin, tmp_path):
    """Each policy changes what is evaluated: none is a name without a deed."""
    found = {}
    for name, changes in {"default": {}, **POLICIES}.items():
        folder = tmp_path / name
        folder.mkdir()
        begin(folder, settings=settings_of(**changes)).run()
        found[name] = tuple(json.loads(line)["id"] for line in lines(folder))
    assert len(set(found.values())) == len(found)
