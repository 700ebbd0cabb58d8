import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat2deploy.cost.calibration import Calibration, MeasuredNetwork, calibrate
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space

OVERHEAD_MS = 0.002


def made_up_ms(signature):
    return OVERHEAD_MS + 1e-8 * signature.macs + 1e-6 * signature.height**2


def networks(true_ms, *, count=44, noise=0.0, seed=0):
    """Random networks whose latency is ``true_ms(compute_ms, weights_mb)``, up to noise."""
    space = load_space("nano")
    rng = np.random.default_rng(seed)
    found = []
    for architecture in random_architectures(IntegerEncoding(space), rng, count):
        signatures = lower(space, architecture, 10)
        medians = [made_up_ms(signature) for signature in signatures]
        weights_mb = sum(s.params for s in signatures if s.kind == "mbconv") * 4e-6
        latency = true_ms(sum(medians) - OVERHEAD_MS * len(medians), weights_mb)
        found.append(MeasuredNetwork(signatures, medians, latency * (1 + noise * rng.standard_normal())))
    return found


def errors(calibration, held_out):
    predicted = [
        calibration.intercept_ms
        + sum(map(calibration.block_ms, network.signatures, network.block_medians_ms))
        for network in held_out
    ]
    return np.abs(np.array(predicted) / [network.latency_ms for network in held_out] - 1)


@pytest.mark.parametrize(
    "true_ms",
    [
        lambda compute, weights: compute + OVERHEAD_MS,
        lambda compute, weights: 0.9 * compute + 0.02 * weights + OVERHEAD_MS,
        lambda compute, weights: 1.15 * compute + 0.03 * weights - 0.01,
        lambda compute, weights: 1.5 * compute,
    ],
)
def test_held_out_networks_are_predicted(true_ms):
    measured = networks(true_ms, noise=0.003)
    calibration = calibrate(measured[:24], OVERHEAD_MS)
    found = errors(calibration, measured[24:])
    assert found.mean() < 0.006
    assert found.max() < 0.02
    assert calibration.residual < 0.006
    assert calibration.networks == 24


def test_what_blocks_alone_spend_on_their_layout_is_taken_off():
    def alone_ms(s):
        outside = -(-s.height // s.stride) * -(-s.width // s.stride)
        moved_mb = (s.in_channels * s.height * s.width + s.out_channels * outside) * 4e-6
        return made_up_ms(s) + (0.05 * moved_mb if s.kind == "mbconv" else 0)

    measured = [
        MeasuredNetwork(n.signatures, [alone_ms(s) for s in n.signatures], n.latency_ms)
        for n in networks(lambda compute, weights: compute + OVERHEAD_MS, noise=0.003)
    ]
    calibration = calibrate(measured[:24], OVERHEAD_MS)
    assert calibration.relief_ms_per_mb == pytest.approx(0.05, rel=0.3)
    assert errors(calibration, measured[24:]).max() < 0.02


def test_a_plain_sum_needs_no_correction():
    calibration = calibrate(networks(lambda compute, weights: compute + OVERHEAD_MS), OVERHEAD_MS)
    assert calibration.scale == pytest.approx(1, abs=1e-6)
    assert calibration.ms_per_weight_mb == pytest.approx(0, abs=1e-6)
    assert calibration.intercept_ms == pytest.approx(OVERHEAD_MS, rel=1e-3)


def test_disturbed_networks_do_not_count():
    def true_ms(compute, weights):
        return 0.95 * compute + 0.02 * weights

    measured = networks(true_ms, noise=0.003)
    disturbed = [
        MeasuredNetwork(n.signatures, n.block_medians_ms, n.latency_ms * (1.5 if i in (3, 11) else 1))
        for i, n in enumerate(measured[:24])
    ]
    assert errors(calibrate(disturbed, OVERHEAD_MS), measured[24:]).max() < 0.02


def test_too_few():
    measured = networks(lambda compute, weights: compute, count=4)
    assert calibrate(measured, OVERHEAD_MS).networks == 4
    with pytest.raises(UserError, match="4 networks or more, not 3"):
        calibrate(measured[:3], OVERHEAD_MS)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 20), st.floats(0, 0.5), st.integers(0, 10**6))
def test_predictions_stay_positive_and_json_goes_both_ways(scale, noise, seed):
    measured = networks(lambda compute, weights: scale * compute, count=12, seed=seed)
    rng = np.random.default_rng(seed)
    rough = [
        MeasuredNetwork(n.signatures, n.block_medians_ms, n.latency_ms * rng.uniform(1, 1 + noise))
        for n in measured
    ]
    calibration = calibrate(rough, OVERHEAD_MS)
    fastest = min(network.latency_ms for network in rough)
    assert calibration.intercept_ms >= -0.5 * fastest * (1 + 1e-9)
    for network in rough:
        blocks = list(map(calibration.block_ms, network.signatures, network.block_medians_ms))
        assert min(blocks) >= 0
        assert sum(blocks) + calibration.intercept_ms > 0
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
