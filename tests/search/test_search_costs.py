"""The objectives of a search: which they are, their values, and budgets that cannot be kept."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.search.budget import format_beside, format_cost, parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.space.lowering import lower, total_macs, total_params
from nat2deploy.space.sampling import uniform_depth_genes

CLASSES = 10


class Timed(CostModel):
    """Costs with a latency of one ms a million MACs, as if from a table."""

    def __init__(self, space):
        super().__init__(space, CLASSES, None)
        self.table = SimpleNamespace(tail=None)

    def costs_of_genes(self, genes, encoding):
        self.table, kept = None, self.table
        costs = super().costs_of_genes(genes, encoding)
        self.table = kept
        return {**costs, "latency_ms": np.asarray(costs["macs"]) / 1e6}


@pytest.fixture
def make(encoding):
    def objectives(*budgets, metrics=(), timed=False) -> Objectives:
        model = Timed(encoding.space) if timed else CostModel(encoding.space, CLASSES, None)
        return Objectives(model, encoding, parse_budgets(list(budgets)), metrics)

    return objectives


def test_what_is_minimised(make):
    assert make().metrics == ("macs",)
    assert make(timed=True).metrics == ("latency_ms",)
    assert make("params<=3M", "macs<=1G", "top1>=50%").metrics == ("params", "macs")
    assert make("params<=3M", timed=True).metrics == ("params",)
    assert make("params<=3M", metrics=("macs", "size_mb")).metrics == ("macs", "size_mb")
    assert make("top1>=50%").metrics == ("macs",)
    assert make(metrics=("latency_ms", "macs", "latency_ms"), timed=True).metrics == ("latency_ms", "macs")
    assert len(make("params<=3M", "macs<=1G")) == 3


def test_top1_budgets_are_told_from_those_on_costs(make):
    objectives = make("top1>=50%", "macs<=1G")
    assert [budget.metric for budget in objectives.cost_budgets] == ["macs"]
    assert [budget.metric for budget in objectives.top1_budgets] == ["top1"]


def test_a_latency_needs_a_table(make):
    for arguments in ({"metrics": ("latency_ms",)}, {}):
        with pytest.raises(UserError, match="needs a table"):
            make(*(() if arguments else ("latency<=5ms",)), **arguments)
    with pytest.raises(UserError, match="needs a table"):
        make("latency<=5ms", metrics=("macs",))
    assert make("latency<=5ms", timed=True).metrics == ("latency_ms",)


def test_a_percentile_needs_a_table_with_a_tail(make):
    with pytest.raises(UserError, match="needs a table"):
        make("latency.p99<=5ms")
    with pytest.raises(UserError, match="says nothing of percentiles"):
        make("latency.p99<=5ms", timed=True)


def test_energy_needs_a_table_that_holds_it(make):
    with pytest.raises(UserError, match="says nothing of energy"):
        make("energy<=5mJ", timed=True)


def test_memory_is_limited_and_minimised(make, encoding):
    objectives = make("memory<=10kB")
    assert objectives.metrics == ("memory_mb",)
    cheapest, cost = objectives.model.cheapest("memory_mb")
    assert objectives.values(cheapest, 0.5)["memory_mb"] == cost <= 0.01
    objectives.check_reachable()
    with pytest.raises(UserError, match=r"'memory<=1kB' cannot be kept: .* kB"):
        make("memory<=1kB").check_reachable()


def test_costs_of_genes_are_those_of_the_networks_blocks(make, encoding):
    genes = uniform_depth_genes(encoding, np.random.default_rng(0), 20)
    costs = make().costs(genes)
    for row in range(20):
        blocks = lower(encoding.space, encoding.decode(genes[row]), CLASSES)
        assert costs["macs"][row] == total_macs(blocks)
        assert costs["params"][row] == total_params(blocks)
    assert all(values.dtype == np.float64 for values in costs.values())
    assert all(len(values) == 0 for values in make().costs(genes[:0]).values())


def test_values_of_an_architecture_hold_top1_and_every_cost(make, space):
    values = make().values(space.largest(), 0.75)
    assert values["top1"] == 0.75
    assert values["macs"] == total_macs(lower(space, space.largest(), CLASSES))
    assert {"top1", "macs", "params", "size_mb"} <= set(values)
    assert "latency_ms" in make(timed=True).values(space.largest(), 0.75)


def test_the_matrix_has_the_error_first(make):
    errors = np.array([0.1, 0.2])
    costs = {"macs": np.array([1.0, 2.0]), "params": np.array([3.0, 4.0]), "size_mb": np.array([5.0, 6.0])}
    matrix = make(metrics=("params", "macs")).matrix(errors, costs)
    np.testing.assert_array_equal(matrix, [[0.1, 3.0, 1.0], [0.2, 4.0, 2.0]])


def test_violations_of_costs(make):
    costs = {"macs": np.array([50.0, 100.0, 150.0]), "params": np.array([1.0, 2.0, 3.0])}
    over = make("macs<=100", "top1>=90%", "params<=2").cost_violations(costs)
    np.testing.assert_allclose(over, [[-0.5, -0.5], [0.0, 0.0], [0.5, 0.5]])
    assert make("top1>=90%").cost_violations(costs).shape == (3, 0)


def test_a_cost_just_over_the_limit_is_over_it(make):
    limit = 1.999e6
    over = make("macs<=1.999M").cost_violations({"macs": np.array([limit, np.nextafter(limit, np.inf)])})
    assert over[0, 0] == 0.0 and over[1, 0] > 0.0


def test_a_budget_below_the_cheapest_is_refused_with_what_the_cheapest_costs(make, space):
    cheapest = total_macs(lower(space, space.smallest(), CLASSES))
    make(f"macs<={cheapest}").check_reachable()
    with pytest.raises(UserError) as caught:
        make(f"macs<={cheapest - 1}").check_reachable()
    message = str(caught.value)
    assert f"'macs<={cheapest - 1}'" in message and f"costs {cheapest / 1e3:.3f}k (" in message
    assert str(space.smallest()) in message and "space 'tiny'" in message
    assert len(message.splitlines()) == 1


def test_every_budget_is_checked_but_accuracy_is_not_known_beforehand(make):
    make("macs<=1G", "top1>=100%").check_reachable()
    with pytest.raises(UserError, match="'params<=1'"):
        make("macs<=1G", "params<=1").check_reachable()


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("latency_ms", 1.23456, "1.235 ms"),
        ("latency_p99_ms", 2.5, "2.500 ms"),
        ("size_mb", 4.0, "4.00 MB"),
        ("size_mb@pi5", 0.0214, "21.4 kB"),
        ("memory_mb@h200", 0.25, "0.25 MB"),
        ("latency_ms@pi5", 2.5, "2.500 ms"),
        ("energy_mj", 2.5, "2.500 mJ"),
        ("top1", 0.93456, "93.46 %"),
        ("macs", 2.345e9, "2.35G"),
        ("macs", 1e6, "1.00M"),
        ("params", 999_000.0, "999.00k"),
        ("params", 12.0, "12"),
        ("macs", 0.0, "0"),
    ],
)
def test_costs_are_written_with_their_unit(metric, value, text):
    assert format_cost(metric, value) == text


@pytest.mark.parametrize(
    ("budget", "value", "text"),
    [
        ("params<=15.35k", 15_354.0, "15.354k"),
        ("params<=10k", 15_354.0, "15.35k"),
        ("size<=61.4kB", 0.061416, "61.42 kB"),
        ("latency<=0.035ms", 0.03521, "0.0352 ms"),
        ("top1>=90%", 0.8999951, "89.9995 %"),
        ("params<=12", 13.0, "13"),
    ],
)
def test_a_cost_beside_a_budget_is_told_from_it(budget, value, text):
    assert format_beside(*parse_budgets([budget]), value) == text
