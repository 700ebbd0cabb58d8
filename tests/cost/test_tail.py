"""Percentiles from medians: fitted, and not led astray."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.cost.tail import Percentile, at_percentile, fit_tail


@given(
    st.floats(0, 0.5), st.floats(0, 0.05), st.lists(st.floats(0.05, 5), min_size=4, max_size=30, unique=True)
)
def test_a_tail_of_this_form_is_found(share, extra_ms, medians):
    medians = np.array(medians)
    p95 = (1 + share) * medians + extra_ms
    tail = fit_tail(medians, p95, 2 * p95)
    assert at_percentile(tail.p95, medians) == pytest.approx(p95, rel=1e-3)
    assert at_percentile(tail.p99, medians) == pytest.approx(2 * p95, rel=1e-3)


def test_a_disturbed_network_counts_for_nothing():
    rng = np.random.default_rng(0)
    medians = np.linspace(0.1, 1.0, 20)
    p95 = medians * 1.04 + 0.003 + rng.normal(0, 1e-4, 20)
    disturbed = p95.copy()
    disturbed[7] *= 3
    tail = fit_tail(medians, disturbed, disturbed)
    assert at_percentile(tail.p95, medians) == pytest.approx(p95, rel=0.01)


def test_it_never_falls_below_the_median():
    tail = fit_tail([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4])
    assert tail.p95 == tail.p99 == Percentile(share=0, extra_ms=0)
