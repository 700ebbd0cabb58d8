"""Successive halving: what is dropped, how often wrongly, and that it is never taken for more."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom
from small_searches import SETTINGS, Listener, lines, result

from nat2deploy.cost.model import CostModel
from nat2deploy.search.archive import ArchiveFile, Evaluation
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.halving import Halving, gates
from nat2deploy.search.judges.base import Job, evaluator_options, in_process
from nat2deploy.search.judges.processes import LocalProcesses

HALVED = SETTINGS.model_copy(
    update={"halving_images": 8, "halving_risk": 0.4, "validation_images": 200, "archive_size": 12}
)


@given(st.integers(20, 3000), st.data())
def test_each_look_takes_its_share_of_the_risk_and_no_more(images, data):
    least = data.draw(st.integers(0, images))
    first = data.draw(st.integers(1, images))
    found = gates(images, least, first, 0.05)
    looks = [first * 2**i for i in range(12) if first * 2**i < images]
    assert {look for look, _ in found} <= set(looks)
    for look, right in found:
        share = 0.05 / len(looks)
        assert hypergeom.cdf(right - 1, images, least, look) < share
        assert hypergeom.cdf(right, images, least, look) >= share
        assert 0 < right <= look


def test_a_network_as_good_as_the_best_is_dropped_no_more_often_than_told():
    rng = np.random.default_rng(0)
    found = gates(5000, 4500, 250, 0.2)
    assert [look for look, _ in found] == [250, 500, 1000, 2000, 4000]
    for right, low, high in ((4500, 0.03, 0.2), (4300, 0.9, 1.0), (4000, 1.0, 1.0)):
        dropped = 0
        for _ in range(400):
            answers = np.zeros(5000, dtype=np.int64)
            answers[rng.permutation(5000)[:right]] = 1
            so_far = answers.cumsum()
            dropped += any(so_far[look - 1] < least for look, least in found)
        assert low <= dropped / 400 <= high


def test_gates_come_from_feasible_rivals_that_cost_no_more_and_saw_all_images(space, encoding):
    objectives = Objectives(CostModel(space, 10, None), encoding, parse_budgets(["top1>=20%"]), ("macs",))
    costs = objectives.costs_of([space.smallest(), space.largest()])
    small, large = (
        Evaluation(a, 0, "archive", 1.0, {"top1": 0.9, **values})
        for a, values in zip((space.smallest(), space.largest()), costs, strict=True)
    )
    halving = Halving(objectives, 1000, 100, 0.05)
    both = [space.smallest(), space.largest()]
    assert [bool(job.gates) for job in halving.jobs(both, [large])] == [False, True]
    assert [bool(job.gates) for job in halving.jobs(both, [small])] == [True, True]
    assert halving.jobs(both, [small])[1].gates == gates(1000, 900, 100, 0.05)
    poor = replace(small, values={**small.values, "top1": 0.1})
    assert not any(job.gates for job in halving.jobs(both, [poor, replace(small, images=100)]))
    assert halving.jobs(both, []) == [Job(a) for a in both]


def test_a_gated_job_ends_at_the_gate_it_fails_and_else_sees_all(begin, digits, space, tmp_path):
    search = begin(tmp_path)
    search.weights.prepare(lambda *_: None)
    judge = in_process(digits, evaluator_options(SETTINGS))
    architecture = space.largest()
    jobs = [
        Job(architecture),
        Job(architecture, ((10, 0), (20, 0))),
        Job(architecture, ((10, 0), (20, 21), (40, 0))),
    ]
    whole, passed, failed = (one.accuracy for one in judge.judge(search.weights, jobs))
    assert (whole.images, passed.images, failed.images) == (50, 50, 20)
    assert passed.top1 == whole.top1 and passed.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (failed.top1 * 20) % 1 == pytest.approx(0, abs=1e-9)


def test_gates_judge_several_forms_as_one_look_at_all_images_does(begin, digits, space, tmp_path):
    search = begin(tmp_path)
    search.weights.prepare(lambda *_: None)
    judge = in_process(digits, evaluator_options(SETTINGS, (False, True)))
    architectures = [replace(a, precision="int8") for a in (space.largest(), space.smallest())]
    whole = [one.accuracy for one in judge.judge(search.weights, [Job(a) for a in architectures])]
    looks = tuple((images, 0) for images in range(1, 50))
    gated = [one.accuracy for one in judge.judge(search.weights, [Job(a, looks) for a in architectures])]
    assert [(one.top1, one.images) for one in gated] == [(one.top1, 50) for one in whole]


@pytest.fixture(scope="module")
def halved(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("halved")
    begin(folder, settings=HALVED, metrics=("macs",)).run()
    return folder


def test_what_is_dropped_says_so_and_is_in_no_archive_and_no_front(halved, begin, space):
    file = ArchiveFile(halved / "archive.jsonl", space)
    dropped = [e for e in file.evaluations if e.images is not None]
    assert dropped and all(8 <= e.images < 200 for e in dropped)
    assert {e.role for e in dropped} <= {"archive", "candidate"} and all(
        e.version > 0 for e in dropped if e.role == "archive"
    )
    written = [json.loads(line) for line in lines(halved)]
    assert [line.get("images") for line in written] == [e.images for e in file.evaluations]
    search = begin(halved, settings=HALVED, metrics=("macs",))
    for version in range(3):
        held = search.rounds.seen(version)
        assert held and all(e.images is None for e in held)
    assert all(e.images is None for e in search.front())


def test_without_halving_no_line_speaks_of_images(undisturbed):
    assert all("images" not in json.loads(line) for line in lines(undisturbed[0]))


def test_halved_and_interrupted_with_workers_it_ends_the_same(halved, begin, digits, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with LocalProcesses(2, digits, evaluator_options(HALVED), tmp_path) as judge:
        for stage, version, done in (("archive", 1, 8), ("evaluate", 1, 2), (None, 0, 0)):
            stop = Listener(lambda s, _, at=(stage, version, done): (s.stage, s.version, s.done) == at)
            search = begin(run, settings=HALVED, metrics=("macs",), listener=stop)
            search.judge = judge
            if stage is None:
                search.run()
            else:
                with pytest.raises(KeyboardInterrupt):
                    search.run()
    assert result(run) == result(halved)
