"""Costs of architectures that choose a precision are those of its table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cost_tables import make_measured_table, make_table

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.precisions import PrecisionCosts
from nat2deploy.cost.targets import TargetCosts
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.target import Target

CHOICES = ("fp32", "int8")


@pytest.fixture(scope="module")
def models(nano):
    tables = make_measured_table(nano), make_table(nano, target=Target(precision="int8"))
    return {table.target.precision: CostModel(nano, 10, table) for table in tables}


def test_each_architecture_costs_what_its_precision_does(nano, models):
    both = PrecisionCosts(models)
    encoding = IntegerEncoding(nano, CHOICES)
    found = random_architectures(encoding, np.random.default_rng(0), 40)
    assert {a.precision for a in found} == set(CHOICES)
    costs = both.costs_of_genes(encoding.encode_all(found), encoding)
    # The second table has no tail.
    assert tuple(costs) == both.metrics == ("macs", "params", "size_mb", "memory_mb", "latency_ms")
    for row, architecture in enumerate(found):
        alone = models[architecture.precision].values(replace(architecture, precision=None))
        assert both.values(architecture) == {metric: alone[metric] for metric in both.metrics}
        for metric in both.metrics:
            assert costs[metric][row] == pytest.approx(alone[metric], rel=1e-12)


def test_the_cheapest_is_that_of_all_precisions(models):
    both = PrecisionCosts(models)
    for metric in both.metrics:
        architecture, cost = both.cheapest(metric)
        costs = {precision: model.cheapest(metric)[1] for precision, model in models.items()}
        assert cost == min(costs.values()) == costs[architecture.precision]
    assert both.cheapest("size_mb")[0].precision == "int8"
    with pytest.raises(UserError, match="no cost metric 'energy_mj' here; use one of macs, params"):
        both.cheapest("energy_mj")


def test_several_targets_in_several_precisions(nano):
    def on_both(precision):
        target = Target(precision=precision)
        return TargetCosts(nano, 10, {n: make_table(nano, target=target) for n in ("pi5", "board")})

    both = PrecisionCosts({p: on_both(p) for p in CHOICES})
    assert both.targets == ("pi5", "board")
    small = nano.smallest()
    eight = both.values(replace(small, precision="int8"))
    assert eight["size_mb@board"] < both.values(replace(small, precision="fp32"))["size_mb@board"]


def test_what_does_not_go_together_is_refused(nano, models):
    both = PrecisionCosts(models)
    with pytest.raises(UserError, match='give the architecture "precision": "fp32" or "precision": "int8"'):
        both.values(nano.smallest())
    with pytest.raises(UserError, match="is of int8, the costs are those of fp32"):
        models["fp32"].costs(replace(nano.smallest(), precision="int8"))
    plain = IntegerEncoding(nano)
    with pytest.raises(ValueError, match="chooses from"):
        both.costs_of_genes(plain.encode(nano.smallest())[None], plain)
