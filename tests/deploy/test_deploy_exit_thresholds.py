import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat2deploy.deploy.exit_thresholds import Goal, Point, confidences_of, fit_thresholds, leave
from nat2deploy.deploy.runner.confidence import CONFIDENCES
from nat2deploy.deploy.runner.expected import expected_cost


def made(exits: int, images: int, seed: int, classes: int = 4):
    """Answers of exits that get better, and surer where they are right."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, images)
    hardness = rng.exponential(1.0, images).clip(0.3)
    answers = rng.standard_normal((exits, images, classes))
    for index in range(exits):
        answers[index, np.arange(images), targets] += (1 + index) / hardness
    return answers.astype(np.float32), targets


def replayed(answers, targets, fitted, thresholds):
    """Accuracy and shares, image by image."""
    confidences = confidences_of(answers, fitted.confidence)
    right, left = 0, np.zeros(len(answers))
    for image, target in enumerate(targets):
        exit_ = next(
            (k for k, t in enumerate(thresholds) if t is not None and confidences[k][image] >= t),
            len(answers) - 1,
        )
        right += answers[exit_, image].argmax() == target
        left[exit_] += 1
    return right / len(targets), left / len(targets)


@settings(max_examples=8)
@given(st.integers(2, 5), st.integers(0, 10_000), st.sampled_from(["", *CONFIDENCES]))
def test_an_accuracy_target_holds_on_the_images_it_was_fitted_on(exits, seed, confidence):
    answers, targets = made(exits, 120, seed)
    costs = np.arange(1.0, exits + 1)
    lowest = (answers[-1].argmax(1) == targets).mean() - 0.02
    fitted = fit_thresholds(answers, targets, costs, Goal(lowest_top1=lowest), confidence=confidence or None)
    best = fitted.best
    top1, shares = replayed(answers, targets, fitted, best.thresholds)
    assert top1 == best.top1 >= lowest - 1e-9
    np.testing.assert_allclose(shares, best.shares)
    assert best.cost == pytest.approx(shares @ costs)
    assert best.cost <= costs[-1]
    for point in fitted.sweep:
        assert replayed(answers, targets, fitted, point.thresholds)[0] == point.top1


@settings(max_examples=8)
@given(st.integers(2, 5), st.integers(0, 10_000), st.floats(0.3, 1.0), st.sampled_from([1, 4]))
def test_an_expected_cost_holds_too(exits, seed, share, batch):
    answers, targets = made(exits, 120, seed)
    costs = np.arange(1.0, exits + 1)
    limit = max(1.0, share * exits)
    fitted = fit_thresholds(answers, targets, costs, Goal(highest_cost=limit), batch=batch)
    assert fitted.best.cost <= limit + 1e-9
    assert fitted.best.cost == pytest.approx(expected_cost(fitted.best.shares, costs, batch))
    assert replayed(answers, targets, fitted, fitted.best.thresholds)[0] == fitted.best.top1


@settings(max_examples=15)
@given(st.integers(2, 3), st.integers(0, 10_000), st.sampled_from(["accuracy", "cost"]))
def test_nothing_better_is_left_with_up_to_three_exits(exits, seed, kind):
    answers, targets = made(exits, 20, seed)
    costs = np.arange(1.0, exits + 1)
    full = (answers[-1].argmax(1) == targets).mean()
    target = Goal(lowest_top1=full - 0.1) if kind == "accuracy" else Goal(highest_cost=0.7 * exits)
    best = fit_thresholds(answers, targets, costs, target, confidence="margin").best
    confidences = confidences_of(answers[:-1], "margin")
    right = answers.argmax(2) == targets
    for thresholds in itertools.product(*([None, *sorted(set(row))] for row in confidences)):
        exit_ = leave(confidences, thresholds)
        top1, cost = right[exit_, np.arange(20)].mean(), costs[exit_].mean()
        if kind == "accuracy" and top1 >= target.lowest_top1 - 1e-9:
            assert best.cost <= cost + 1e-9
        if kind == "cost" and cost <= target.highest_cost + 1e-9:
            assert best.top1 >= top1 - 1e-9


def test_the_same_input_gives_the_same_thresholds():
    answers, targets = made(4, 300, 3)
    first, second = (fit_thresholds(answers, targets, [1, 2, 3, 4], Goal(lowest_top1=0.7)) for _ in range(2))
    assert first == second


def test_the_measure_that_reaches_the_target_cheapest_is_taken():
    answers, targets = made(3, 300, 1)
    target = Goal(lowest_top1=(answers[-1].argmax(1) == targets).mean() - 0.01)
    costs = {
        name: fit_thresholds(answers, targets, [1, 2, 3], target, confidence=name).best.cost
        for name in CONFIDENCES
    }
    chosen = fit_thresholds(answers, targets, [1, 2, 3], target)
    assert chosen.best.cost == min(costs.values()) == costs[chosen.confidence]


def test_a_target_out_of_reach_comes_with_what_is_nearest():
    answers, targets = made(3, 200, 0)
    fitted = fit_thresholds(answers, targets, [1, 2, 3], Goal(lowest_top1=1.0))
    assert fitted.best is None
    assert max(point.top1 for point in fitted.sweep) <= fitted.nearest.top1 < 1.0
    fitted = fit_thresholds(answers, targets, [1, 2, 3], Goal(highest_cost=0.5))
    assert fitted.best is None
    assert fitted.nearest.shares == (1.0, 0.0, 0.0)


def test_the_sweep_rises_in_cost_and_accuracy():
    answers, targets = made(4, 500, 0)
    sweep = fit_thresholds(answers, targets, [1, 2, 3, 4], Goal(lowest_top1=0.5)).sweep
    assert 5 < len(sweep) <= 24
    assert [p.cost for p in sweep] == sorted({p.cost for p in sweep})
    assert [p.top1 for p in sweep] == sorted({p.top1 for p in sweep})


def test_a_batch_costs_what_its_last_image_does():
    rng = np.random.default_rng(0)
    shares, costs = (0.5, 0.3, 0.2), np.array([1.0, 2.0, 4.0])
    drawn = rng.choice(3, size=(200_000, 4), p=shares).max(axis=1)
    assert expected_cost(shares, costs, 4) == pytest.approx(costs[drawn].mean(), rel=5e-3)
    assert expected_cost(shares, costs) == pytest.approx(np.dot(shares, costs))


@pytest.mark.parametrize("name", CONFIDENCES)
def test_measures_run_from_not_at_all_sure_to_sure(name):
    measure = CONFIDENCES[name]
    low = {"max-softmax": 0.1, "margin": 0.0, "entropy": 0.0}[name]
    assert measure([0.0] * 10) == pytest.approx(low, abs=1e-12)
    assert measure([1000.0, *[0.0] * 9]) == pytest.approx(1.0)
    assert measure([3.0]) == 1.0


def test_measures_are_what_their_names_say():
    logits = np.random.default_rng(0).standard_normal((1, 50, 7)) * 3
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum(1, keepdims=True)
    top = np.sort(shares, axis=1)
    np.testing.assert_allclose(confidences_of(logits, "max-softmax")[0], top[:, -1])
    np.testing.assert_allclose(confidences_of(logits, "margin")[0], top[:, -1] - top[:, -2], atol=1e-12)
    nats = -(shares * np.log(shares)).sum(1)
    np.testing.assert_allclose(confidences_of(logits, "entropy")[0], 1 - nats / np.log(7))


@pytest.mark.parametrize(("target", "met"), [(Goal(lowest_top1=0.5), True), (Goal(highest_cost=2.0), False)])
def test_of_one_exit_there_is_nothing_to_fit(target, met):
    answers = np.eye(3, dtype=np.float32)[None, [0, 1, 2, 0]]
    fitted = fit_thresholds(answers, np.array([0, 1, 2, 1]), [3.0], target)
    assert fitted.nearest == Point((), 0.75, (1.0,), 3.0) and fitted.sweep == (fitted.nearest,)
    assert (fitted.best is not None) == met
    assert leave(confidences_of(answers[:-1], fitted.confidence), ()).tolist() == [0] * 4
