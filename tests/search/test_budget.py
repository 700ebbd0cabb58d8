"""Budgets are read exactly or refused in one line."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nat2deploy.errors import UserError
from nat2deploy.search.budget import (
    Budget,
    budget_word,
    budgets_on,
    cost_metric,
    feasible,
    parse_budget,
    parse_budgets,
    violation,
)


@pytest.mark.parametrize(
    ("text", "metric", "limit"),
    [
        ("latency<=5ms", "latency_ms", 5.0),
        ("latency<=250us", "latency_ms", 0.25),
        ("latency<=0.5s", "latency_ms", 500.0),
        ("latency.p95<=6ms", "latency_p95_ms", 6.0),
        ("latency.p99<=800us", "latency_p99_ms", 0.8),
        ("macs<=200M", "macs", 200e6),
        ("macs<=1.5G", "macs", 1.5e9),
        ("macs<=800k", "macs", 800e3),
        ("macs<=800K", "macs", 800e3),
        ("params<=3M", "params", 3e6),
        ("params<=3000000", "params", 3e6),
        ("params<=3e6", "params", 3e6),
        ("size<=4MB", "size_mb", 4.0),
        ("size<=512kB", "size_mb", 0.512),
        ("size<=512KB", "size_mb", 0.512),
        ("memory<=512kB", "memory_mb", 0.512),
        ("memory<=1.5MB", "memory_mb", 1.5),
        ("memory<=2GB", "memory_mb", 2000.0),
        ("energy<=5mJ", "energy_mj", 5.0),
        ("energy<=900uJ", "energy_mj", 0.9),
        ("energy<=0.2J", "energy_mj", 200.0),
        ("top1>=0.9", "top1", 0.9),
        ("top1>=90%", "top1", 0.9),
        ("top1>=1", "top1", 1.0),
        ("latency@pi5<=30ms", "latency_ms@pi5", 30.0),
        ("latency.p99@H200-1 <= 2ms", "latency_p99_ms@H200-1", 2.0),
        ("memory@pi_5<=1MB", "memory_mb@pi_5", 1.0),
        ("latency<=.5ms", "latency_ms", 0.5),
        ("latency<=5.ms", "latency_ms", 5.0),
        ("  latency  <=  5  ms  ", "latency_ms", 5.0),
    ],
)
def test_every_unit_and_spacing(text, metric, limit):
    budget = parse_budget(text)
    assert (budget.metric, budget.limit) == (metric, limit)
    assert budget.text == text.replace(" ", "")


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_percentage_is_exact(percent):
    budget = parse_budget(f"top1>={percent}%")
    assert budget.limit == percent / 100
    assert budget.kept_by(percent / 100)


@pytest.mark.parametrize("thousands", [7, 57, 199, 1023])
def test_small_units_are_exact(thousands):
    assert parse_budget(f"latency<={thousands}us").limit == thousands / 1000
    assert parse_budget(f"size<={thousands}kB").limit == thousands / 1000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"),
        ("latency", "cannot be read"),
        ("latency<5ms", "cannot be read"),
        ("latency=5ms", "cannot be read"),
        ("latency<=", "cannot be read"),
        ("latency<=fast", "cannot be read"),
        ("latency<=-5ms", "cannot be read"),
        ("latency<=5ms or so", "cannot be read"),
        ("latency<=nan", "cannot be read"),
        ("speed<=5ms", "no metric 'speed'"),
        ("Latency<=5ms", "no metric 'Latency'"),
        ("latency.p98<=8ms", "no metric 'latency.p98'"),
        ("latency@<=5ms", "no metric 'latency@'"),
        ("latency@a.b<=5ms", "no metric 'latency@a.b'"),
        ("latency@a@b<=5ms", "no metric 'latency@a@b'"),
        ("latency<=5", "unit 'none'"),
        ("latency<=5M", "unit 'M'"),
        ("latency<=5MS", "unit 'MS'"),
        ("macs<=5MB", "unit 'MB'"),
        ("size<=4", "unit 'none'"),
        ("memory<=4M", "unit 'M'"),
        ("energy<=4mj", "unit 'mj'"),
        ("params<=3m", "unit 'm'"),
        ("latency>=5ms", "wrong way"),
        ("top1<=90%", "wrong way"),
        ("latency<=0ms", "out of range"),
        ("latency<=1e999ms", "out of range"),
        ("latency<=1e-999ms", "out of range"),
        ("macs<=1e308G", "out of range"),
        ("top1>=90", "out of range"),
        ("top1>=101%", "out of range"),
        ("top1>=0", "out of range"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, says):
    with pytest.raises(UserError, match="budget") as caught:
        parse_budget(text)
    assert says in str(caught.value)


def test_refusals_show_how_to_write_it():
    with pytest.raises(UserError, match=r"latency<=5ms, .*, macs<=200M, params<=3M"):
        parse_budget("make it quick")


def test_several_budgets_keep_their_order():
    budgets = parse_budgets(["params<=3M", "top1>=90%", "macs<=1G"])
    assert [budget.metric for budget in budgets] == ["params", "top1", "macs"]
    assert parse_budgets([]) == ()


def test_one_metric_is_limited_once():
    with pytest.raises(UserError, match=r"'params<=3M' and 'params<=4M' limit the same metric"):
        parse_budgets(["params<=3M", "macs<=1G", "params<=4M"])


@given(
    st.one_of(
        st.text(max_size=80),
        st.from_regex(r"[a-z1]{3,8} ?[<>]?= ?[0-9.eE+-]{1,12} ?[A-Za-z%µ]{0,3}", fullmatch=True),
        st.builds(
            "{}{}{}{}".format,
            st.sampled_from(["latency", "macs", "params", "size", "memory", "latency@a-1", "energy", "top1"]),
            st.sampled_from(["<=", ">="]),
            st.from_regex(r"[0-9]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,25})?", fullmatch=True),
            st.sampled_from(["", "ms", "us", "s", "k", "K", "M", "G", "MB", "kB", "KB", "%"]),
        ),
    )
)
@example("latency<=" + "9" * 5000 + "ms")
@example("latency<=5ms\n\n")
@example("late\nncy")
@example("size<=0." + "0" * 200 + "1MB")
@example("macs<=1e99999999999999999999")
@example("macs\n<=5")
def test_any_text_is_a_budget_or_one_clear_line(text):
    try:
        budget = parse_budget(text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert 0.0 < budget.limit < math.inf
    assert len(budget.text.splitlines()) == 1
    assert budget.kept_by(budget.limit)
    assert budget.violation(budget.limit) <= 0.0


positive = st.floats(min_value=1e-300, max_value=1e300)


@example(1.999, 1, 1.0, True)
@given(positive, st.integers(min_value=-3, max_value=3), positive, st.booleans())
def test_violation_and_feasible_agree(limit, steps, other, near):
    value = limit if near else other
    for _ in range(abs(steps) if near else 0):
        value = math.nextafter(value, math.inf if steps > 0 else 0.0)
    for metric in ("latency_ms", "top1"):
        budget = Budget("b", metric, limit)
        assert budget.kept_by(value) == (budget.violation(value) <= 0.0)
        assert feasible((budget,), {metric: value}) == (violation((budget,), {metric: value}) == 0.0)


def test_violations_add_up_and_slack_does_not_pay_for_them():
    budgets = parse_budgets(["macs<=100", "params<=100", "top1>=50%"])
    values = {"macs": 150.0, "params": 10.0, "top1": 0.25}
    assert violation(budgets, values) == pytest.approx(0.5 + 0.25)
    assert not feasible(budgets, values)
    assert feasible(budgets, {"macs": 100.0, "params": 100.0, "top1": 0.5})
    assert feasible((), {}) and violation((), {}) == 0


def test_budgets_find_their_target():
    budgets = parse_budgets(["latency@pi5<=30ms", "latency@h200<=2ms", "macs<=1G", "top1>=90%"])
    assert budgets_on(budgets, ("pi5", "h200")) == budgets
    alone = budgets_on(parse_budgets(["latency<=30ms", "macs<=1G"]), ("pi5",))
    assert [budget.metric for budget in alone] == ["latency_ms@pi5", "macs"]
    assert [budget.text for budget in alone] == ["latency<=30ms", "macs<=1G"]
    with pytest.raises(UserError, match=r"budget 'latency<=5ms': .* say which by @pi5 or @h200"):
        budgets_on(parse_budgets(["latency<=5ms"]), ("pi5", "h200"))
    with pytest.raises(UserError, match="no target 'h200'; the tables are of pi5"):
        budgets_on(budgets, ("pi5",))
    with pytest.raises(UserError, match="limit the same metric"):
        budgets_on(parse_budgets(["latency<=5ms", "latency@pi5<=30ms"]), ("pi5",))


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("latency", "latency_ms"),
        ("latency_ms", "latency_ms"),
        ("latency.p99@pi5", "latency_p99_ms@pi5"),
        ("latency_p99_ms@pi5", "latency_p99_ms@pi5"),
        ("macs", "macs"),
        ("memory", "memory_mb"),
    ],
)
def test_a_cost_by_either_name(text, metric):
    assert cost_metric(text) == metric
    assert cost_metric(budget_word(metric)) == metric


@pytest.mark.parametrize("text", ["top1", "latency@", "speed", "latency@a b", ""])
def test_what_is_no_cost(text):
    with pytest.raises(UserError, match="no cost"):
        cost_metric(text)
