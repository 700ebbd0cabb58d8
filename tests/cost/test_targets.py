"""Costs of several targets are those of each one, by its name."""

from __future__ import annotations

import numpy as np
import pytest
from cost_tables import make_measured_table, make_table

from nat2deploy.cost.metric_names import metric_on
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.targets import TargetCosts
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target


@pytest.fixture(scope="module")
def tables(nano):
    board = make_measured_table(nano, slower=9.0)
    card = make_table(nano, target=Target(precision="int8", batch=8))
    return {"pi5": board, "H200": card}


@pytest.fixture(scope="module")
def both(nano, tables):
    return TargetCosts(nano, 10, tables)


def test_metrics_bear_the_targets_names_where_they_differ(both):
    assert both.targets == ("pi5", "H200")
    assert both.metrics == (
        "macs",
        "params",
        "size_mb@pi5",
        "memory_mb@pi5",
        "latency_ms@pi5",
        "latency_p95_ms@pi5",
        "latency_p99_ms@pi5",
        "size_mb@H200",
        "memory_mb@H200",
        "latency_ms@H200",
    )


def test_each_cost_is_that_of_its_target_alone(nano, tables, both):
    encoding = IntegerEncoding(nano)
    found = random_architectures(encoding, np.random.default_rng(0), 12)
    genes = encoding.encode_all(found)
    costs = both.costs_of_genes(genes, encoding)
    assert tuple(costs) == both.metrics
    for name, table in tables.items():
        alone = CostModel(nano, 10, table)
        for metric, values in alone.costs_of_genes(genes, encoding).items():
            key = metric if metric in ("macs", "params") else f"{metric}@{name}"
            np.testing.assert_array_equal(costs[key], values)
            assert both.values(found[0])[key] == alone.values(found[0])[metric]
            assert both.cheapest(key) == alone.cheapest(metric)
    assert (costs["size_mb@H200"] < costs["size_mb@pi5"]).all()
    # Eight images of one byte a value against one of four.
    np.testing.assert_allclose(costs["memory_mb@H200"], 2 * costs["memory_mb@pi5"], rtol=1e-12)


def test_what_no_target_has(both, tables):
    for metric in ("latency_ms", "latency_ms@board", "latency_p99_ms@H200", "top1"):
        with pytest.raises(UserError, match=f"no cost metric '{metric}'"):
            both.cheapest(metric)
    with pytest.raises(UserError, match=r"target pi5: the latency table is of space 'nano' .* 'ofa-mbv3'"):
        TargetCosts(load_space("ofa-mbv3"), 10, tables)


@pytest.mark.parametrize(
    ("metric", "targets", "full"),
    [
        ("latency_ms", (), "latency_ms"),
        ("latency_ms", ("pi5",), "latency_ms@pi5"),
        ("size_mb@pi5", ("pi5", "H200"), "size_mb@pi5"),
        ("macs", ("pi5", "H200"), "macs"),
        ("top1", ("pi5", "H200"), "top1"),
    ],
)
def test_a_metrics_full_name(metric, targets, full):
    assert metric_on(metric, targets) == full


@pytest.mark.parametrize(
    ("metric", "targets", "says"),
    [
        ("latency_ms", ("pi5", "H200"), "say which by @pi5 or @H200"),
        ("memory_mb", ("pi5", "H200"), "say which by @pi5 or @H200"),
        ("latency_ms@h200", ("pi5", "H200"), "no target 'h200'; the tables are of pi5, H200"),
        ("latency_ms@pi5", (), "no target 'pi5'; give --table NAME=FILE"),
        ("macs@pi5", ("pi5",), "'macs' is the same on every target"),
        ("top1@pi5", ("pi5",), "'top1' is the same on every target"),
    ],
)
def test_a_metric_that_is_of_no_target_or_of_several(metric, targets, says):
    with pytest.raises(UserError, match=says):
        metric_on(metric, targets)
