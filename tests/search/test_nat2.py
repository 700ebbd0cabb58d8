"""Whole searches on real digits: what they do each round, and what they return."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_searches import SETTINGS, Listener, lines, make_space, result, save_fresh

from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.search.archive import ArchiveFile, Evaluation
from nat2deploy.search.budget import feasible, parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.distribution import DISTRIBUTIONS
from nat2deploy.search.judges.base import evaluator_options
from nat2deploy.search.nat2 import best_of
from nat2deploy.search.update import feasible_front, from_its_ends
from nat2deploy.search.weights import SearchWeights
from nat2deploy.space.sampling import uniform_depth_genes
from nat2deploy.supernet.checkpoint import load_supernet, save_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator


def by_id(evaluation: Evaluation) -> str:
    return evaluation.architecture.id


def test_each_version_of_the_weights_judges_the_whole_archive_and_its_candidates(undisturbed, space):
    folder, archive, _ = undisturbed
    file = ArchiveFile(folder / "archive.jsonl", space)
    for version in (0, 1):
        roles = [e.role for e in file.of_version(version)]
        assert roles == ["archive"] * 7 + ["candidate"] * 3
    assert sorted(file.of_version(2), key=by_id) == sorted(archive, key=by_id) and len(archive) == 7
    assert all(space.contains(e.architecture) for e in file.evaluations)
    assert len({(e.architecture, e.version) for e in file.evaluations}) == len(file.evaluations)


def test_the_next_archive_is_the_best_of_archive_and_candidates(undisturbed, space):
    file = ArchiveFile(undisturbed[0] / "archive.jsonl", space)
    for version in (0, 1):
        merged = {e.architecture for e in file.of_version(version)}
        following = [e for e in file.of_version(version + 1) if e.role == "archive"]
        assert {e.architecture for e in following} <= merged
        kept = max(file.of_version(version), key=lambda e: (e.values["top1"], -e.values["macs"]))
        assert kept.architecture in {e.architecture for e in following}


def test_the_weights_learn_and_count_their_versions(undisturbed, foreign_source):
    folder = undisturbed[0]
    supernet, info = load_supernet(folder / "supernet.safetensors")
    assert info.version == 2 and info.classes == 10 and info.data == "digits"
    teacher, of_teacher = load_supernet(folder / "teacher.safetensors")
    assert of_teacher.version == 0
    assert not torch.equal(supernet.stem[0].conv.weight, teacher.stem[0].conv.weight)
    before = load_supernet(foreign_source)[0]
    assert not torch.equal(teacher.stem[0].conv.weight, before.stem[0].conv.weight)


def test_the_history_tells_each_round(undisturbed):
    history = json.loads((undisturbed[0] / "history.json").read_text())
    assert [entry["round"] for entry in history] == [0, 1, 2]
    assert [entry["evaluations"] for entry in history] == [7, 17, 27]
    assert all(0.0 < entry["hypervolume"] < 1.0 for entry in history)
    assert [entry.get("surrogate") for entry in history] == ["bayesian-ridge", "bayesian-ridge", None]
    assert all(-1.0 <= entry["tau"] <= 1.0 for entry in history[:2])


def test_statuses_count_each_stage_to_its_end(undisturbed):
    seen = undisturbed[2]
    assert list(dict.fromkeys(s.stage for s in seen)) == [
        "warm-up",
        "archive",
        "round",
        "surrogate",
        "evolve",
        "evaluate",
        "adapt",
    ]
    assert [(s.done, s.total) for s in seen if s.stage == "evaluate"] == 2 * [(1, 3), (2, 3), (3, 3)]
    assert [(s.done, s.total) for s in seen if s.stage == "archive"] == 3 * [(n, 7) for n in range(1, 8)]
    assert [(s.done, s.total) for s in seen if s.stage == "adapt"] == 2 * [(n, 3) for n in range(1, 4)]
    assert [s.round for s in seen if s.stage == "round"] == [0, 1, 2]
    assert all(s.rounds == 2 for s in seen)
    assert seen[-1].best is not None and seen[-1].hypervolume is not None and seen[-1].tau is not None


def test_a_finished_search_is_not_done_again(undisturbed, begin, foreign_source):
    folder, archive, _ = undisturbed
    before = result(folder)
    listener = Listener()
    assert begin(folder, listener=listener, of=foreign_source).run() == archive
    assert result(folder) == before
    assert {s.stage for s in listener.seen} == {"archive", "round"}


def test_another_seed_searches_elsewhere(undisturbed, begin, tmp_path):
    settings = SETTINGS.model_copy(update={"seed": 1, "rounds": 1})
    begin(tmp_path, settings=settings).run()
    assert {json.loads(line)["id"] for line in lines(tmp_path)[:7]} != {
        json.loads(line)["id"] for line in lines(undisturbed[0])[:7]
    }


def test_the_front_is_feasible_not_dominated_and_cheapest_first(begin, tmp_path, space):
    model = CostModel(space, 10, None)
    middle = (model.costs(space.smallest()).macs + model.costs(space.largest()).macs) // 2
    search = begin(tmp_path, f"macs<={middle}", "params<=1M", metrics=("macs",))
    archive = search.run()
    front = search.front()
    assert front and all(e in archive for e in front)
    assert all(feasible(search.objectives.budgets, e.values) for e in front)
    assert any(not feasible(search.objectives.budgets, e.values) for e in search.file.evaluations)
    inside = [e for e in archive if feasible(search.objectives.budgets, e.values)]
    for one in inside:
        beaten = any(
            other.error <= one.error
            and other.values["macs"] <= one.values["macs"]
            and (other.error, other.values["macs"]) != (one.error, one.values["macs"])
            for other in inside
        )
        assert (one in front) == (not beaten)
    costs = [e.values["macs"] for e in front]
    assert costs == sorted(costs)
    assert best_of(front) is front[-1]


def test_the_front_of_known_evaluations(space, encoding):
    objectives = Objectives(CostModel(space, 10, None), encoding, parse_budgets(["macs<=100", "top1>=10%"]))
    shapes = uniform_depth_genes(encoding, np.random.default_rng(0), 5)
    values = [(0.9, 100.0), (0.95, 101.0), (0.5, 20.0), (0.4, 30.0), (0.05, 1.0)]
    evaluations = [
        Evaluation(encoding.decode(genes), 0, "archive", 1.0, {"top1": top1, "macs": macs})
        for genes, (top1, macs) in zip(shapes, values, strict=True)
    ]
    # One is over its budget, one is dominated, one not accurate enough; the rest goes by cost.
    assert feasible_front(evaluations, objectives) == [evaluations[2], evaluations[0]]
    assert feasible_front([], objectives) == []
    assert best_of([]) is None


def test_adaptation_samples_by_the_step_and_around_the_best(begin, tmp_path, space, monkeypatch):
    samplers = []
    monkeypatch.setattr(SearchWeights, "adapt", lambda self, sampler, report: samplers.append(sampler))
    settings = SETTINGS.model_copy(update={"adapt_subnets": 3, "top": 1, "archive_size": 30})
    monkeypatch.setattr(SearchWeights, "version", property(lambda self: len(samplers)))
    search = begin(tmp_path, settings=settings)
    search.run()
    for version, sampler in enumerate(samplers):
        drawn = [sampler(step) for step in range(60)]
        assert drawn == [sampler(step) for step in range(60)]
        assert all(len(batch) == 3 and all(space.contains(a) for a in batch) for batch in drawn)
        whole = search.file.of_version(version)
        best = max(whole, key=lambda e: (e.values["top1"], -e.values["macs"])).architecture
        assert [a for batch in drawn for a in batch].count(best) > 0
        assert len({a for batch in drawn for a in batch}) > 20


def test_every_round_and_step_and_seed_samples_anew(begin, tmp_path, monkeypatch):
    class Numbers:
        def __init__(self, encoding, genes):
            pass

        def sample(self, rng, count, repair):
            return rng.random()

    samplers = []
    monkeypatch.setitem(DISTRIBUTIONS, "categorical", Numbers)
    monkeypatch.setattr(SearchWeights, "adapt", lambda self, sampler, report: samplers.append(sampler))
    monkeypatch.setattr(SearchWeights, "version", property(lambda self: len(samplers) % 3))
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        begin(folder, settings=SETTINGS.model_copy(update={"seed": seed})).run()
        samplers.append(None)  # the third version: the search of this seed is over
    drawn = [sampler(step) for sampler in samplers if sampler is not None for step in range(5)]
    assert len(set(drawn)) == len(drawn) == 20


def test_the_front_is_empty_where_nothing_is_feasible(begin, tmp_path):
    search = begin(tmp_path, "top1>=99.9%")
    assert search.front() == []
    archive = search.run()
    assert len(archive) == 7 and search.front() == []
    assert [entry["hypervolume"] for entry in search.history] == [0.0, 0.0, 0.0]
    assert [entry["best"] for entry in search.history] == [None, None, None]


def test_a_stopped_search_has_a_front_of_what_is_judged_with_its_weights(begin, digits, tmp_path):
    search = begin(tmp_path)
    assert search.front() == [] and search.unsure == ""
    part, older = "it is of that part", "its accuracies are those before"
    judge = SubNetworkEvaluator(digits, **evaluator_options(SETTINGS))
    for stage, version, done, says in (
        ("archive", 0, 3, part),
        ("evolve", 0, 0, ""),
        ("adapt", 0, 1, ""),
        ("archive", 1, 1, older),
        ("archive", 1, 6, part),
        ("evaluate", 1, 2, ""),
    ):
        stop = Listener(lambda s, _, at=(stage, version, done): (s.stage, s.version, s.done) == at)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path, listener=stop).run()
        search = begin(tmp_path)
        front = search.front()
        assert version == search.weights.version
        assert search.unsure.startswith(says) and bool(search.unsure) == bool(says)
        of = version - (says == older)  # until the last front is judged again it stays the front
        assert front and {e.version for e in front} == {of}
        for one in front if of == version else ():
            assert judge(search.weights.supernet, one.architecture).top1 == one.values["top1"]
        if says and version:  # the last front is judged first, at all costs alike
            last = feasible_front(search.rounds.merged(0), search.objectives)
            again = [e.architecture for e in search.file.of_version(1)]
            assert again[: len(last)] == from_its_ends([e.architecture for e in last])[:done]
            assert (done < len(last)) == (says == older)
    archive = (tmp_path / "archive.jsonl").read_text().splitlines(keepends=True)
    first = [line for line in archive if json.loads(line)["version"] == 0]
    (tmp_path / "archive.jsonl").write_text("".join(first))  # as if stopped before any was judged again
    (tmp_path / "history.json").write_text(json.dumps(search.history[:1]))
    search = begin(tmp_path)
    assert {e.version for e in search.front()} == {0} and search.unsure.startswith(older)


@pytest.mark.parametrize("update", ["grow", "constant-size"])
def test_the_order_of_judging_again_is_not_that_of_the_archive(begin, tmp_path, update):
    search = begin(tmp_path, settings=SETTINGS.model_copy(update={"update": update}))
    search.run()
    for version in (1, 2):
        archive = [e.architecture for e in search.rounds.archive(version)]
        assert archive == [e.architecture for e in search.rounds.merged(version - 1)]
        judged = search.file.of_version(version)[: len(archive)]
        assert archive != [e.architecture for e in judged]
        assert {e.version for e in search.rounds.archive(version)} == {version}


@pytest.mark.parametrize("metrics", [("macs", "params"), ("size_mb",)])
def test_other_objectives_and_the_growing_archive_of_nat(begin, tmp_path, metrics):
    settings = SETTINGS.model_copy(
        update={"initialisation": "uniform-genes", "update": "grow", "adapt_epochs": 0.0, "rounds": 1}
    )
    search = begin(tmp_path, settings=settings, metrics=metrics)
    assert len(search.run()) == 10
    assert len(search.objectives) == 1 + len(metrics)
    assert len(search.file.evaluations) == 10  # the weights stay as they are, so none is judged again


@pytest.mark.parametrize("reevaluate", [True, False])
def test_with_weights_that_stay_nothing_is_judged_again(begin, tmp_path, reevaluate):
    listener = Listener()
    settings = SETTINGS.model_copy(update={"adapt_epochs": 0.0, "reevaluate": reevaluate})
    search = begin(tmp_path, listener=listener, settings=settings)
    archive = search.run()
    judged = [e.architecture for e in search.file.evaluations]
    assert len(judged) == len(set(judged)) == 7 + 2 * 3
    assert {e.architecture for e in archive} <= set(judged) and len(archive) == 7
    assert {e.architecture for e in search.front()} <= {e.architecture for e in archive}
    assert [s.version for s in listener.seen if s.stage == "archive"] == [0] * 7


def test_with_weights_that_stay_judging_again_is_no_setting(begin, tmp_path):
    settings = SETTINGS.model_copy(update={"adapt_epochs": 0.0, "archive_size": 4, "rounds": 4})
    found = []
    for reevaluate in (True, False):
        folder = tmp_path / str(reevaluate)
        folder.mkdir()
        search = begin(folder, settings=settings.model_copy(update={"reevaluate": reevaluate}))
        search.run()
        judged = [e.architecture for e in search.file.evaluations]
        assert len(judged) == len(set(judged))
        inside = {e.architecture for e in search.rounds.archive(3)}
        # What did not survive is learnt from all the same.
        assert {e.architecture for e in search.rounds.others(3)} == {
            e.architecture for e in search.file.evaluations if e.version < 3
        } - inside
        found.append(judged)
    assert found[0] == found[1]


def test_a_run_that_judged_again_with_the_same_weights_goes_on_as_it_would_have(begin, tmp_path):
    """As older versions did."""
    settings = SETTINGS.model_copy(update={"adapt_epochs": 0.0})
    (tmp_path / "now").mkdir()
    (tmp_path / "older").mkdir()
    now = begin(tmp_path / "now", settings=settings)
    expected = now.run()
    older = begin(tmp_path / "older", settings=settings)
    older.weights.prepare(lambda *_: None)
    older.weights.adapt(lambda step: [], lambda *_: None)
    again = [replace(e, version=1, role="archive") for e in now.rounds.merged(0)]
    for evaluation in (*now.file.of_version(0), *again, now.file.of_version(1)[0]):
        older.file.append(evaluation)
    shutil.copy(tmp_path / "now" / "history.json", tmp_path / "older")
    result = begin(tmp_path / "older", settings=settings).run()
    assert [(e.architecture, e.values) for e in result] == [(e.architecture, e.values) for e in expected]


def test_a_space_that_is_judged_whole_has_no_candidates_left(begin, tmp_path, space, source):
    few = space.model_copy(update={"resolutions": (16,), "kernels": (3,), "depths": (1,)})
    torch.manual_seed(0)
    supernet, info = load_supernet(source)
    path = tmp_path / "few.safetensors"
    small = type(supernet)(few, 1.0, 10)
    save_supernet(path, small, info.model_copy(update={"space": small.space}))
    search = begin(tmp_path, of=path, within=few)
    assert len(search.run()) == 4
    assert {e.role for e in search.file.evaluations} == {"archive"}


def test_a_budget_below_the_cheapest_is_refused_before_anything_is_done(begin, tmp_path):
    with pytest.raises(UserError, match="'macs<=1k' cannot be kept"):
        begin(tmp_path, "macs<=1k").run()
    assert list(tmp_path.iterdir()) == []


def test_weights_that_give_no_finite_loss_are_named(begin, tmp_path, source):
    supernet, info = load_supernet(source)
    with torch.no_grad():
        supernet.exits["2"][1].linear.bias.fill_(float("nan"))
    save_supernet(tmp_path / "nan.safetensors", supernet, info)
    for _ in range(2):
        with pytest.raises(UserError, match=r"no finite loss, nor do .* give another super-network"):
            begin(tmp_path, of=tmp_path / "nan.safetensors").run()
        assert len(lines(tmp_path)) == 3


def test_a_network_without_a_finite_loss_is_the_worst_and_the_search_goes_on(begin, tmp_path):
    search = begin(tmp_path)
    evaluator, broken = search.judge.evaluator, []

    def judging(supernet, architecture):
        found = evaluator(supernet, architecture)
        if len(broken) < 2:
            broken.append(architecture)
            return replace(found, loss=math.nan)
        return found

    search.judge.evaluator = judging
    search.run()
    worst = [e for e in search.file.of_version(0) if e.architecture in broken]
    assert len(worst) == 2 and all((e.values["top1"], e.loss) == (0.0, 1e9) for e in worst)
    assert ArchiveFile(search.file.path, search.encoding.space).evaluations == search.file.evaluations


def test_an_archive_without_the_round_before_is_named(begin, tmp_path):
    def re_evaluating(status, _):
        return status.stage == "round" and status.done == 1

    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, listener=Listener(re_evaluating)).run()
    path = tmp_path / "archive.jsonl"
    path.write_text("".join(line + "\n" for line in lines(tmp_path) if json.loads(line)["version"] == 1))
    with pytest.raises(UserError, match="lost round 0"):
        begin(tmp_path).run()


def test_a_broken_history_is_named(begin, tmp_path):
    (tmp_path / "history.json").write_text("[{")
    with pytest.raises(UserError, match="history"):
        begin(tmp_path)


ALONE = SETTINGS.model_copy(update={"adapt_epochs": 0.0, "surrogates": ("lightgbm", "process-trees-ridge")})


@pytest.mark.parametrize(("kernels", "count"), [((3,), 1), ((3, 5), 2)])
def test_a_space_of_one_or_two_architectures_gives_a_front(begin, tmp_path, kernels, count):
    small = make_space("small", stages=1, kernels=kernels, expansions=(2.0,), depths=(1,))
    source = save_fresh(tmp_path / "small.safetensors", small)
    search = begin(tmp_path / "run", of=source, within=small, settings=ALONE)
    assert len(search.run()) == count
    assert 1 <= len(search.front()) <= count


def test_a_seed_may_be_a_time_in_nanoseconds(begin, tmp_path):
    search = begin(
        tmp_path, settings=ALONE.model_copy(update={"seed": 1_790_000_000_000_000_000, "rounds": 1})
    )
    assert len(search.run()) == 7 and search.front()


def test_statuses_find_the_front_anew_only_when_there_is_something_new(begin, tmp_path, monkeypatch):
    listener = Listener()
    search = begin(tmp_path, listener=listener)
    front, found = search.front, []
    monkeypatch.setattr(search, "front", lambda: found.append(1) or front())
    search.run()
    lines_and_rounds = len(search.file.evaluations) + len(search.history)
    assert len(found) <= lines_and_rounds < len(listener.seen)
    assert listener.seen[-1].best == best_of(front())
