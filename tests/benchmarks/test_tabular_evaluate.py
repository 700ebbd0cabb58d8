"""Networks judged in trees have the accuracy that a search would give them, and nothing is lost by a kill."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tabular_evaluate
import torch
from tabular_evaluate import TreeJudge, bit_reversed, count, draw_trees

from nat2deploy.data.load import load_data
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower, total_macs
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge


@pytest.fixture(scope="module")
def space():
    return load_space("nano-ee-d").restrict(resolutions=(28, 32))


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", base_resolution=32, max_train=100)


@pytest.fixture(scope="module")
def supernet(space):
    torch.manual_seed(3)
    return SuperNetwork(space, 1.0, 10).eval()


@pytest.fixture(scope="module")
def trees(space):
    return draw_trees(space, 10, (3, 1, 1), seed=0)


def members(node):
    return [node.architecture, *(a for child in node.children for a in members(child))]


def test_a_tree_is_judged_as_a_search_judges_each_network(supernet, digits, trees):
    tree = max(trees[:40], key=count)
    judged = list(TreeJudge(supernet, digits, seed=4, test_images=120)(tree))
    assert [a for a, _ in judged] == members(tree)
    evaluator = SubNetworkEvaluator(digits, seed=4)
    test = digits.test.subset(120, 4)
    for architecture, figures in judged:
        network = evaluator.network(supernet, architecture)
        validation = judge(network, digits, digits.validation, architecture.resolution)
        assert figures["validation_right"] == round(validation.top1 * validation.images)
        assert figures["validation_loss"] == pytest.approx(validation.loss, abs=2e-5)
        assert figures["test_right"] == round(
            judge(network, digits, test, architecture.resolution).top1 * 120
        )
    assert len({f["validation_loss"] for _, f in judged}) == len(judged)


def test_trees_hold_every_first_stage_the_ends_and_no_network_twice(space, trees):
    everyone = [a for tree in trees for a in members(tree)]
    assert len(set(everyone)) == len(everyone) >= 5000
    assert {a.stages[0] for a in everyone if len(a.stages) == 1 and a.resolution == 32} == set(
        tabular_evaluate.stage_choices(space)
    )
    assert {space.smallest(), space.largest()} <= set(everyone)
    assert {len(a.stages) for a in everyone} == {1, 2, 3, 4}


def test_any_first_part_of_the_trees_spreads_over_the_costs(space, trees):
    def decile_shares(part):
        costs = [total_macs(lower(space, a, 10)) for tree in part for a in members(tree)]
        return np.histogram(costs, edges)[0] / len(costs)

    everyone = [total_macs(lower(space, a, 10)) for tree in trees[::3] for a in members(tree)]
    edges = np.quantile(everyone, np.linspace(0, 1, 6))
    for length in (32, 128):
        assert np.abs(decile_shares(trees[:length]) - 0.2).max() < 0.08


def test_bit_reversed_visits_everything_once():
    for length in (1, 2, 7, 516):
        assert sorted(bit_reversed(length)) == list(range(length))
    assert bit_reversed(8) == [0, 4, 2, 6, 1, 5, 3, 7]


@pytest.fixture
def command(space, supernet, digits, tmp_path, monkeypatch):
    """Run the program on three small trees; returns the lines of its folder."""
    path = tmp_path / "w.safetensors"
    labels = tuple("0123456789")
    save_supernet(
        path, supernet, SuperNetworkInfo(space=space, width=1.0, classes=10, data="digits", labels=labels)
    )
    few = draw_trees(space, 10, (1, 1, 1), seed=0)[:3]
    monkeypatch.setattr(tabular_evaluate, "draw_trees", lambda *given: few)
    monkeypatch.setattr(tabular_evaluate, "load_data", lambda *given, **named: digits)

    def run(*more):
        folder = tmp_path / "evaluated"
        given = ["tabular_evaluate.py", "--supernet", str(path), "--data", "digits", "--test-images", "50"]
        monkeypatch.setattr("sys.argv", [*given, "--out", str(folder), *more])
        tabular_evaluate.main()
        return {p.name: p.read_text().splitlines() for p in folder.glob("*.jsonl")}

    return run, tmp_path / "evaluated"


def test_a_killed_program_goes_on_and_two_share_the_work(command):
    run, folder = command
    whole = run()["forward.jsonl"]
    assert len({json.loads(line)["id"] for line in whole}) == len(whole) >= 6
    (folder / "forward.jsonl").write_text("\n".join(whole[:3]) + "\n" + whole[3][:20])
    after = run("--backward")
    assert after["forward.jsonl"] == [*whole[:3], whole[3][:20]]  # the other process's own to mend
    assert sorted([*whole[:3], *after["backward.jsonl"]]) == sorted(whole)
    assert run()["forward.jsonl"] == whole[:3]  # nothing is left to do but to cut the broken line


def test_what_an_earlier_benchmark_holds_is_left_out(command, space, monkeypatch):
    run, folder = command
    whole = [json.loads(line) for line in run()["forward.jsonl"]]
    encoding = IntegerEncoding(space)
    tree = members(tabular_evaluate.draw_trees()[0])
    held = SimpleNamespace(encoding=encoding, genes=encoding.encode_all(tree))
    monkeypatch.setattr(tabular_evaluate, "load_tabular", lambda path: held)
    (folder / "forward.jsonl").unlink()
    rest = [json.loads(line) for line in run("--known", "earlier.npz")["forward.jsonl"]]
    known = {a.id for a in tree}
    assert rest == [line for line in whole if line["id"] not in known]
