from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from deploy_helpers import make_net

from nat2deploy.deploy.manifest import Parity
from nat2deploy.deploy.parity import LEAST_AGREEMENT, MAX_DIFFERENCE, agrees, compare, describe, run_all
from nat2deploy.deploy.runner.proof import PARITY
from nat2deploy.engines.registry import compile_model
from nat2deploy.engines.torch_eager import TorchEngine
from nat2deploy.errors import UserError
from nat2deploy.target import Target

LOGITS = np.array([[1.0, 2.0, -4.0], [3.0, 0.0, 1.0]], dtype=np.float32)


def test_equal_logits_agree() -> None:
    assert compare(LOGITS, LOGITS) == Parity(images=2, max_difference=0.0, top1_agreement=1.0)


def test_the_difference_is_relative_to_the_largest_logit() -> None:
    other = LOGITS.copy()
    other[0, 0] += 0.5
    assert compare(other, LOGITS).max_difference == pytest.approx(0.125)
    assert compare(100 * other, 100 * LOGITS).max_difference == pytest.approx(0.125)


def test_another_first_class_is_counted() -> None:
    assert compare(LOGITS[:, ::-1].copy(), LOGITS).top1_agreement == 0.5


@pytest.mark.parametrize(
    ("difference", "agreement", "good"),
    [(0.0, 1.0, True), (1e-3, 0.99, True), (1.1e-3, 1.0, False), (0.0, 0.98, False)],
)
def test_the_limits(difference: float, agreement: float, good: bool) -> None:
    parity = Parity(images=100, max_difference=difference, top1_agreement=agreement)
    assert agrees(parity) is good
    assert "100 images" in describe(parity)


@pytest.mark.parametrize(
    ("difference", "agreement", "good"),
    [(0.25, 0.9, True), (0.26, 1.0, False), (0.0, 0.89, False)],
)
def test_the_limits_of_8_bits(difference: float, agreement: float, good: bool) -> None:
    parity = Parity(images=100, max_difference=difference, top1_agreement=agreement)
    assert agrees(parity, "int8") is good
    assert not agrees(parity, "fp32")


def test_the_bundles_runner_has_the_same_limits() -> None:
    assert {p: (MAX_DIFFERENCE[p], LEAST_AGREEMENT[p]) for p in MAX_DIFFERENCE} == PARITY


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    bad = LOGITS.copy()
    bad[1, 1] = value
    for found, expected in ((bad, LOGITS), (LOGITS, bad)):
        with pytest.raises(UserError, match="not finite"):
            compare(found, expected)


def test_zeros_and_other_shapes_are_refused() -> None:
    with pytest.raises(UserError, match="all zero"):
        compare(LOGITS, np.zeros_like(LOGITS))
    with pytest.raises(UserError, match="PyTorch"):
        compare(LOGITS[:, :2], LOGITS)


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_any_number_of_images_runs_in_the_engines_batches(count: int) -> None:
    images = np.random.default_rng(0).standard_normal((count, 3, 16, 16), dtype=np.float32)
    net = make_net()
    batched = run_all(compile_model(net, Target(batch=4), (4, 3, 16, 16)), images)
    single = run_all(compile_model(net, Target(), (1, 3, 16, 16)), images)
    assert batched.shape == (count, 3)
    np.testing.assert_allclose(batched, single, atol=1e-5)


def test_pytorch_gets_many_at_once_and_none_is_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).standard_normal((120, 3, 16, 16), dtype=np.float32)
    plain, given = TorchEngine._run, []

    def run(self: TorchEngine, part: Any) -> Any:
        given.append(len(part))
        return plain(self, part)

    monkeypatch.setattr(TorchEngine, "_run", run)
    net = make_net()
    many = run_all(TorchEngine(net, Target(), (1, 3, 16, 16)), images)
    assert given == [50, 50, 20]
    run_all(TorchEngine(net, Target(batch=64), (64, 3, 16, 16)), images)
    assert given[3:] == [64, 56]
    assert TorchEngine(net, Target(), (1, 3, 512, 512)).run_batch == 6
    assert TorchEngine(net, Target(), (1, 3, 4096, 4096)).run_batch == 1
    one_by_one = run_all(compile_model(net, Target(), (1, 3, 16, 16)), images)
    np.testing.assert_allclose(many, one_by_one, atol=1e-4)
