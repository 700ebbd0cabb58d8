import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nat2deploy.cost.certificate import Certificate, certify
from nat2deploy.errors import UserError

MEASURED = [1.0, 2.0, 3.0, 4.0, 5.0]


def test_figures_by_hand():
    predicted = [1.01, 1.92, 3.0, 4.32, 4.4]  # +1 %, -4 %, 0, +8 %, -12 %
    found = certify(predicted, MEASURED, noise=0.01)
    assert found.networks == 5
    assert found.mape == pytest.approx(0.05)
    assert found.bias == pytest.approx(-0.014)
    assert found.max_error == pytest.approx(0.12)
    assert (found.within_2pct, found.within_5pct, found.within_10pct) == (0.4, 0.6, 0.8)
    assert (found.spearman, found.kendall) == pytest.approx((1, 1))
    assert found.date == datetime.date.today()


def test_wrong_order_shows_in_the_correlations():
    found = certify(MEASURED[::-1], MEASURED, noise=0.0)
    assert (found.spearman, found.kendall) == pytest.approx((-1, -1))
    assert certify([1.0] * 5, MEASURED, noise=0.0).spearman == 0.0


def test_a_noisy_machine_gets_none():
    with pytest.raises(UserError, match=r"noise is 3\.1%, above 3%"):
        certify(MEASURED, MEASURED, noise=0.031)
    with pytest.raises(UserError, match="noise"):
        certify(MEASURED, MEASURED, noise=float("nan"))


def test_too_few_networks():
    with pytest.raises(UserError, match="4 networks or more, not 3"):
        certify([1, 2, 3], [1, 2, 3], noise=0.0)


@pytest.mark.parametrize("predicted", [[1.0] * 4, [[1, 2, 3, 4, 5]]])
def test_lists_that_are_not_of_the_same_networks(predicted):
    with pytest.raises(ValueError, match="one length"):
        certify(predicted, MEASURED, noise=0.0)


@pytest.mark.parametrize("odd", [0, -1, np.nan, np.inf])
def test_what_is_no_latency(odd):
    with pytest.raises(ValueError, match="positive"):
        certify([1, 2, 3, 4, 5], [1, 2, 3, 4, odd], noise=0.0)
    with pytest.raises(UserError, match="no certificate: networks are predicted to take no time"):
        certify([1, 2, 3, 4, odd], [1, 2, 3, 4, 5], noise=0.0)


latencies = st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=20)


@given(latencies, st.randoms(use_true_random=False))
def test_shares_are_nested_and_json_goes_both_ways(measured, random):
    predicted = [value * random.uniform(0.8, 1.2) for value in measured]
    found = certify(predicted, measured, noise=0.02)
    assert found.within_2pct <= found.within_5pct <= found.within_10pct
    assert abs(found.bias) <= found.mape + 1e-12 <= found.max_error + 1e-9
    assert Certificate.model_validate_json(found.model_dump_json()) == found


def test_a_tampered_noise_is_refused():
    value = certify(MEASURED, MEASURED, noise=0.01).model_dump()
    with pytest.raises(ValidationError):
        Certificate.model_validate({**value, "noise": 0.2})
