"""What a judged network passes at its early exits is known as if it had been judged by itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_searches import SETTINGS, Listener, lines, make_space, result, save_fresh

from nat2deploy.search.archive import ArchiveFile
from nat2deploy.search.judges.base import Job, evaluator_options, in_process
from nat2deploy.search.judges.processes import LocalProcesses
from nat2deploy.search.passed_exits import passed_by, with_passed
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.training import evaluation

GATED = SearchSettings(
    **{**SETTINGS.model_dump(), "validation_images": None, "halving_images": 8, "halving_risk": 0.4}
)


@pytest.fixture(scope="module", params=["one", "several"])
def early(request):
    """Three stages with an exit behind each, and dense skips."""
    return make_space(stages=3).model_copy(update={"exits": request.param, "dense_skips": True})


@pytest.fixture(scope="module")
def weights(early, tmp_path_factory):
    return save_fresh(tmp_path_factory.mktemp("source") / "digits.safetensors", early)


@pytest.fixture
def search(begin, early, weights):
    """A search of that space, as a new process sets it up."""

    def make(folder, *budgets, **given):
        return begin(folder, *budgets, within=early, of=weights, **given)

    return make


def drawn(space, count):
    return random_architectures(IntegerEncoding(space), np.random.default_rng(1), count)


def judged_in_process(early, digits, held):
    """What is found of jobs that pass others, each of which is as if it had been judged by itself."""
    judge = in_process(digits, evaluator_options(SETTINGS))
    architectures = [early.largest(), *drawn(early, 4)]
    judged = {}
    for gates in ((), ((20, 0), (30, 0))):
        jobs = with_passed([Job(one, gates) for one in architectures], early)
        assert sum(len(job.passed) for job in jobs) > 3
        judged |= zip(jobs, judge.judge(held, jobs), strict=True)
        for job in jobs:
            alone = list(judge.judge(held, [Job(a, gates) for a in (job.architecture, *job.passed)]))
            assert [judged[job].accuracy, *judged[job].passed] == [one.accuracy for one in alone]
    return judged


def test_accuracies_are_those_of_each_judged_by_itself(search, early, digits, tmp_path):
    held = search(tmp_path).weights
    held.prepare(lambda *_: None)
    judged = judged_in_process(early, digits, held)
    with LocalProcesses(1, digits, evaluator_options(SETTINGS), tmp_path) as processes:
        assert list(processes.judge(held, list(judged))) == list(judged.values())


def test_so_they_are_where_networks_are_folded(search, early, digits, tmp_path, monkeypatch):
    held = search(tmp_path).weights
    held.prepare(lambda *_: None)
    monkeypatch.setattr(evaluation, "_FOLD_FROM", 1)
    assert judged_in_process(early, digits, held)


def test_of_a_network_that_is_given_up_nothing_passed_counts(search, early, digits, tmp_path):
    held = search(tmp_path).weights
    held.prepare(lambda *_: None)
    job = Job(early.largest(), ((10, 11),), early.passed(early.largest()))
    (judged,) = in_process(digits, evaluator_options(SETTINGS)).judge(held, [job])
    assert judged.accuracy.images == 10 and judged.passed == ()


def test_what_is_passed_for_certain_needs_no_job(early):
    large = early.largest()
    first, second = early.passed(large)
    other = early.smallest()
    assert with_passed([Job(first), Job(large), Job(second), Job(other)], early) == [
        Job(large, (), (first, second)),
        Job(other, (), early.passed(other)),
    ]
    gates = ((8, 4),)
    assert with_passed([Job(first), Job(large, gates)], early) == [
        Job(first, (), early.passed(first)),
        Job(large, gates, (first, second)),
    ]


def test_each_is_judged_alone_in_another_precision(early):
    for precision, passes in (("fp32", 2), ("int8", 0), ("fp16", 0)):
        (job,) = with_passed([Job(replace(early.largest(), precision=precision))], early)
        assert [one.precision for one in job.passed] == [precision] * passes


@pytest.mark.parametrize("precisions", [(), ("fp32", "int8")])
def test_genes_pass_what_their_architectures_pass(early, precisions):
    encoding = IntegerEncoding(early, precisions)
    architectures = random_architectures(encoding, np.random.default_rng(2), 40)
    owners, genes = passed_by(encoding.encode_all(architectures), encoding)
    expected = [
        (owner, one)
        for owner, architecture in enumerate(architectures)
        if architecture.precision in (None, "fp32")
        for one in early.passed(architecture)
    ]
    found = zip(owners.tolist(), map(encoding.decode, genes), strict=True)
    assert expected and sorted(found, key=repr) == sorted(expected, key=repr)
    assert (encoding.repair(genes) == genes).all()


def test_where_no_early_exit_is_there_is_nothing_to_pass(space):
    jobs = [Job(a) for a in drawn(space, 3)]
    assert with_passed(jobs, space) == jobs
    encoding = IntegerEncoding(space)
    owners, genes = passed_by(encoding.encode_all([job.architecture for job in jobs]), encoding)
    assert len(owners) == len(genes) == 0


@pytest.fixture(scope="module", params=[SETTINGS, GATED], ids=["plain", "halving"])
def whole(request, begin, early, weights, tmp_path_factory):
    """A search that was left alone: its settings and folder."""
    folder = tmp_path_factory.mktemp("whole")
    begin(folder, within=early, of=weights, settings=request.param).run()
    return request.param, folder


def test_the_archive_holds_what_was_passed_and_counts_what_was_judged(whole, search, early, digits):
    settings, folder = whole
    finished = search(folder, settings=settings)
    file = ArchiveFile(folder / "archive.jsonl", early)
    passed = [e for e in file.evaluations if e.passed_by is not None]
    assert passed and file.judged == len(file.evaluations) - len(passed)
    by_id = {(e.architecture.id, e.version): e for e in file.evaluations}
    for one in passed:
        judged = by_id[one.passed_by, one.version]
        assert one.architecture in early.passed(judged.architecture)
        assert judged.passed_by is None and judged.images is None and one.images is None
        assert one.role == judged.role
    history = json.loads((folder / "history.json").read_text())
    assert history[-1]["evaluations"] == file.judged
    last = [one for one in passed if one.version == SETTINGS.rounds]
    judge = in_process(digits, evaluator_options(settings))
    alone = judge.judge(finished.weights, [Job(one.architecture) for one in last])
    for one, judged in zip(last, alone, strict=True):
        assert one.values["top1"] == judged.accuracy.top1


def test_no_network_is_judged_twice_with_the_same_weights(whole, early):
    _, folder = whole
    named = [(one["id"], one["version"]) for one in map(json.loads, lines(folder))]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize(("early", "whole"), [("one", GATED), ("several", SETTINGS)], indirect=True)
@pytest.mark.parametrize(
    ("stage", "kept"), [("archive", 1), ("evaluate", 0), ("evaluate", 1), ("evaluate", 2)]
)
def test_killed_between_two_lines_it_goes_on_and_ends_the_same(whole, search, tmp_path, killed, stage, kept):
    settings, folder = whole
    begun = []

    def kill(status, _):
        begun.extend([len(lines(tmp_path))] * (status.stage == stage and status.done == 1))
        return bool(begun) and status.stage == stage and status.done == 3

    with pytest.raises(killed):
        search(tmp_path, settings=settings, listener=Listener(kill, killed)).run()
    path = tmp_path / "archive.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines(tmp_path)[: begun[0] + kept]))
    search(tmp_path, settings=settings).run()
    assert result(tmp_path) == result(folder)


def test_candidates_of_a_round_are_judged_once_where_one_passes_another(search, early, tmp_path, monkeypatch):
    large = early.largest()
    first, second = early.passed(large)
    begun = search(tmp_path)
    begun.weights.prepare(lambda *_: None)
    begun._evaluate([first, large, second], 0, "candidate")
    found = [(e.architecture, e.passed_by) for e in begun.file.evaluations]
    assert found == [(first, large.id), (second, large.id), (large, None)]
    assert begun.rounds.found(0, [large]) == begun.file.evaluations
    assert begun.rounds.found(0, [first]) == []


def test_without_it_each_is_judged_by_itself(search, tmp_path):
    settings = SETTINGS.model_copy(update={"passed_exits": False})
    search(tmp_path, settings=settings).run()
    assert not any("passed_by" in line for line in lines(tmp_path))
