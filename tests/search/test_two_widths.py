"""A search over super-networks of two widths, which live side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_searches import SETTINGS, Listener, lines, result, save_fresh

from nat2deploy.search.weights import SearchWeights
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator

TWO = SETTINGS.model_copy(update={"adapt_subnets": 3})


@pytest.fixture(scope="module")
def both(begin, foreign_pair, two_widths, tmp_path_factory):
    """A search of both that is left alone: its folder, last archive and statuses."""
    folder = tmp_path_factory.mktemp("both")
    listener = Listener()
    archive = begin(folder, listener=listener, of=foreign_pair, within=two_widths, settings=TWO).run()
    return folder, archive, listener.seen


def test_the_archive_and_what_evolves_hold_both_widths(both):
    found = [json.loads(line) for line in lines(both[0])]
    assert {line["architecture"]["w"] for line in found if line["version"] == 0} == {1.0, 2.0}
    assert {line["architecture"]["w"] for line in found if line["role"] == "archive"} == {1.0, 2.0}


def test_each_is_judged_with_the_weights_of_its_width(both, digits):
    supernet, info = load_supernet(both[0] / "supernet.safetensors")
    assert (info.version, info.widths) == (2, (1.0, 2.0))
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=40, validation_images=50)
    for evaluation in both[1]:
        network = supernet.at(evaluation.architecture.width)
        accuracy = evaluator(network, evaluation.architecture)
        assert (accuracy.top1, accuracy.loss) == (evaluation.values["top1"], evaluation.loss)


@pytest.mark.parametrize(
    "moment",
    [("warm-up", 0, 2), ("archive", 0, 3), ("evaluate", 0, 2), ("adapt", 0, 2), ("evaluate", 1, 3)],
    ids=lambda m: f"{m[0]}-{m[1]}-{m[2]}",
)
def test_ended_at_any_moment_it_ends_the_same(both, begin, foreign_pair, two_widths, tmp_path, moment):
    listener = Listener(lambda s, _: (s.stage, s.round, s.done) == moment)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, listener=listener, of=foreign_pair, within=two_widths, settings=TWO).run()
    begin(tmp_path, of=list(reversed(foreign_pair)), within=two_widths, settings=TWO).run()
    assert result(tmp_path) == result(both[0])


def quiet(stage, done, total):
    """Tell nobody."""


@pytest.fixture
def weights(digits, two_widths, foreign_pair, tmp_path):
    held = SearchWeights(tmp_path, foreign_pair, two_widths, digits, TWO)
    held.prepare(quiet)
    return held


def changed(before, after) -> set[str]:
    state = after.state_dict()
    return {key.split(".")[1] for key, value in before.items() if not torch.equal(value, state[key])}


@pytest.mark.parametrize(("width", "number"), [(1.0, "0"), (2.0, "1")])
def test_adaptation_trains_only_the_widths_that_are_sampled(weights, two_widths, width, number):
    before = {key: value.clone() for key, value in weights.supernet.state_dict().items()}
    weights.adapt(lambda step: [two_widths.largest(16, width)], quiet)
    assert changed(before, weights.supernet) == {number}
    weights.adapt(lambda step: [two_widths.largest(16, w) for w in (1.0, 2.0)], quiet)
    assert changed(before, weights.supernet) == {"0", "1"}


def test_the_widest_full_network_teaches(weights, two_widths, digits):
    blocks = weights.teacher.network.exits["2"][1].linear.in_features
    widest = load_supernet(weights.path)[0].at(2.0).extract(two_widths.full(16, 2.0))
    assert blocks == widest.exits["2"][1].linear.in_features


def test_only_what_does_not_know_the_data_is_warmed_up(two_widths, foreign_pair, digits, tmp_path):
    known = save_fresh(tmp_path / "known.safetensors", two_widths, width=2.0)
    held = SearchWeights(tmp_path / "run", [foreign_pair[0], known], two_widths, digits, TWO)
    (tmp_path / "run").mkdir()
    told = []
    held.prepare(lambda *now: told.append(now))
    assert told
    before = load_supernet(known)[0].state_dict()
    after = held.supernet.at(2.0).state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_width_gene_is_drawn_from_the_best(both, begin, foreign_pair, two_widths, tmp_path, monkeypatch):
    samplers = []
    monkeypatch.setattr(SearchWeights, "adapt", lambda self, sampler, report: samplers.append(sampler))
    monkeypatch.setattr(SearchWeights, "version", property(lambda self: len(samplers)))
    begin(tmp_path, of=foreign_pair, within=two_widths, settings=TWO).run()
    widths = [a.width for step in range(200) for a in samplers[0](step)]
    assert 0.0 < np.mean([width == 2.0 for width in widths]) < 1.0
