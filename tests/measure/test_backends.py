import weakref
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from nat2deploy.errors import UserError
from nat2deploy.measure import backends
from nat2deploy.measure.backends import choose_backend
from nat2deploy.measure.networks import measure_engines
from nat2deploy.target import Target, make_targets

ONNXRUNTIME, TORCH = Target(), Target(backend="torch")


@pytest.fixture
def measured_as(monkeypatch):
    """Measure for real, but then say other latencies: those of a backend's networks, in order."""
    seen = []

    def pretend(latencies_ms):
        def measure(engines, **settings):
            seen.append(engines)
            found = measure_engines(engines, **settings)
            summaries = {}
            for name, summary in found.summaries.items():
                backend, index = name.split()
                summaries[name] = replace(summary, median_ms=latencies_ms[backend][int(index)])
            return replace(found, summaries=summaries)

        monkeypatch.setattr(backends, "measure_engines", measure)
        return seen

    return pretend


def choose(space, targets, **changes):
    return choose_backend(space, targets, seed=0, time_limit_s=0.2, precision=0.5, **changes)


def test_real_backends_are_measured_and_ranked(tiny_space):
    targets = make_targets("cpu", "fp32", 1, 1)
    choice = choose(tiny_space, targets)
    installed = {"onnxruntime", "torch"} | ({"openvino"} if find_spec("openvino") else set())
    assert {one.target.backend for one in choice.measured} == installed
    assert set(choice.left_out) == {"onnxruntime", "openvino", "torch"} - installed
    ratios = [one.ratio for one in choice.measured]
    assert ratios[0] == 1
    assert ratios == sorted(ratios)
    assert choice.fastest == choice.measured[0].target
    assert choice.reason == "the fastest on 6 networks"


def test_the_ratio_is_the_geometric_mean_over_networks(tiny_space, measured_as):
    # By the sum of latencies torch would win both times, by the number of networks none.
    measured_as({"onnxruntime": [1, 1, 1, 1, 1, 64], "torch": [2, 2, 2, 2, 2, 1]})
    choice = choose(tiny_space, [ONNXRUNTIME, TORCH])
    assert [one.target for one in choice.measured] == [TORCH, ONNXRUNTIME]
    assert choice.measured[1].ratio == pytest.approx(2 ** (1 / 6))
    measured_as({"onnxruntime": [1, 1, 1, 1, 1, 16], "torch": [2, 2, 2, 2, 2, 1]})
    choice = choose(tiny_space, [ONNXRUNTIME, TORCH])
    assert [one.target for one in choice.measured] == [ONNXRUNTIME, TORCH]
    assert choice.measured[1].ratio == pytest.approx(2 ** (1 / 6))


def test_all_backends_get_the_same_networks_and_weights_both_ends_among_them(tiny_space, measured_as):
    seen = measured_as({"onnxruntime": [1] * 6, "torch": [2] * 6})
    choose(tiny_space, [ONNXRUNTIME, TORCH])
    (engines,) = seen
    assert len(engines) == 12
    sides = [engines[f"torch {index}"].input_shape[-1] for index in range(6)]
    assert (sides[0], sides[1]) == (min(tiny_space.resolutions), max(tiny_space.resolutions))
    for index in range(6):
        one, other = (engines[f"{backend} {index}"] for backend in ("onnxruntime", "torch"))
        x = np.random.default_rng(0).standard_normal(one.input_shape, dtype=np.float32)
        np.testing.assert_allclose(one.run(x), other.run(x), rtol=1e-3, atol=1e-4)


def test_a_backend_that_cannot_run_them_is_left_out_with_its_reason(tiny_space, monkeypatch):
    original = backends.compile_candidate

    def missing(candidate, target):
        if target.backend == "onnxruntime":
            raise UserError("gone fishing")
        return original(candidate, target)

    monkeypatch.setattr(backends, "compile_candidate", missing)
    choice = choose(tiny_space, [ONNXRUNTIME, TORCH])
    assert choice.fastest == TORCH
    assert choice.left_out == {"onnxruntime": "gone fishing"}
    assert choice.reason == "the only one that runs fp32 here"
    with pytest.raises(UserError, match=r"no backend can run .* gone fishing"):
        choose(tiny_space, [ONNXRUNTIME])


@pytest.mark.parametrize("kind", [RuntimeError, UserError])
def test_a_backend_that_fails_only_when_it_runs_is_left_out_and_its_engines_are_gone(
    tiny_space, monkeypatch, kind
):
    original, held = backends.compile_candidate, []

    def refuse(images):
        raise kind("capture failed\nmore")

    def failing(candidate, target):
        engine = original(candidate, target)
        if target.backend == "onnxruntime":
            held.append(weakref.ref(engine))
            if len(held) == 3:
                engine._prepare = refuse
        elif target.backend == "torch" and len(alive) == 0:
            alive.append([one() for one in held])
        return engine

    alive = []
    monkeypatch.setattr(backends, "compile_candidate", failing)
    choice = choose(tiny_space, [ONNXRUNTIME, TORCH])
    assert choice.left_out == {"onnxruntime": "capture failed"}
    assert choice.fastest == TORCH
    assert alive == [[None] * 3]


def test_progress_goes_from_nothing_to_all(tiny_space):
    shares = []
    choose(tiny_space, [ONNXRUNTIME, TORCH], progress=lambda share, text: shares.append(share))
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert 0.5 < shares[-1] <= 1
