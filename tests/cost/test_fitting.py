"""A table fitted to its own networks: calibration, tail and certificate."""

import numpy as np
import pytest
from cost_tables import make_measured_table, make_networks, make_table

from nat2deploy.cost.fitting import certify_networks, fit_table, predict_networks
from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures


@pytest.fixture(scope="module")
def fitted(nano):
    return make_measured_table(nano)


def test_it_predicts_networks_that_it_never_saw(nano, fitted):
    fresh = make_networks(nano, 20, "held-out", seed=77)
    predicted = predict_networks(fitted, nano, fresh)
    assert predicted == pytest.approx([network.median_ms for network in fresh], rel=0.005)
    assert fitted.certificate.mape < 0.005 and fitted.certificate.networks == 8
    assert fitted.certificate.p95_mape < 0.005 and fitted.certificate.p99_mape < 0.005


def test_a_certificate_is_of_the_held_out_networks_alone(nano, fitted):
    networks = [network.scaled(1.1) if network.role == "held-out" else network for network in fitted.networks]
    table = fitted.model_copy(update={"networks": tuple(networks)})
    again, _ = fit_table(table, nano, call_overhead_ms=0.0015, noise=0.002)
    assert again.calibration == fitted.calibration
    assert again.certificate.bias == pytest.approx(1 / 1.1 - 1, abs=0.005)


def test_noise_is_the_worse_of_the_machines_and_the_intervals(nano, fitted):
    held_out = [network for network in fitted.networks if network.role == "held-out"]
    assert certify_networks(fitted, nano, held_out, noise=0.01).noise == 0.01
    assert certify_networks(fitted, nano, held_out, noise=0.0).noise == pytest.approx(0.001)


def test_networks_known_too_badly_have_no_certificate_on_a_quiet_machine_either(nano, fitted):
    held_out = [
        network.model_copy(update={"ci_low_ms": 0.9 * network.median_ms})
        for network in fitted.networks
        if network.role == "held-out"
    ]
    with pytest.raises(UserError, match=r"known to within 5\.\d% only, above 3%; give more time"):
        certify_networks(fitted, nano, held_out, noise=0.001)


def test_without_a_certificate_it_says_why(nano, fitted):
    table, why_not = fit_table(fitted, nano, call_overhead_ms=0.0015, noise=0.2)
    assert table.certificate is None and "noise is 20" in why_not
    assert table.network_noise == table.noise_of_networks() == 0.2
    assert table.calibration == fitted.calibration


def test_no_networks_no_calibration(nano):
    with pytest.raises(UserError, match="calibrating needs"):
        fit_table(make_table(nano), nano, call_overhead_ms=0.001, noise=0.001)


def test_percentiles_of_genes_and_of_one_architecture_agree(nano, fitted):
    encoding = IntegerEncoding(nano)
    model = CostModel(nano, 10, fitted)
    drawn = random_architectures(encoding, np.random.default_rng(0), 20)
    many = model.costs_of_genes(encoding.encode_all(drawn), encoding)
    for index, architecture in enumerate(drawn):
        one = model.costs(architecture)
        assert one.latency_p95_ms == pytest.approx(many["latency_p95_ms"][index])
        assert one.latency_p99_ms == pytest.approx(many["latency_p99_ms"][index])
        assert one.latency_ms < one.latency_p95_ms < one.latency_p99_ms
    cheapest, cost = model.cheapest("latency_p99_ms")
    assert cheapest == model.cheapest("latency_ms")[0]
    assert cost == model.costs(cheapest).latency_p99_ms
    assert "latency_p95_ms" not in CostModel(nano, 10, make_table(nano)).metrics
