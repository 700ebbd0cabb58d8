import itertools
import time

import numpy as np
import pytest
from cost_tables import make_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nat2deploy.cost.memory import network_peak_values
from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower, plan_network, total_macs, total_params
from nat2deploy.space.sampling import random_architectures, uniform_depth_genes
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model(nano, table):
    return CostModel(nano, 37, table)


@pytest.fixture(scope="module")
def encoding(nano):
    return IntegerEncoding(nano)


@quick
@given(st.integers(0, 2**32 - 1))
def test_scalar_and_vectorised_agree(model, encoding, seed):
    genes = uniform_depth_genes(encoding, np.random.default_rng(seed), 5)
    costs = model.costs_of_genes(genes, encoding)
    assert set(costs) == set(model.metrics) == {"macs", "params", "size_mb", "memory_mb", "latency_ms"}
    assert costs["macs"].dtype == costs["params"].dtype == np.int64
    for row, architecture in enumerate(map(encoding.decode, genes)):
        alone = model.costs(architecture)
        assert alone.macs == costs["macs"][row]
        assert alone.params == costs["params"][row]
        assert alone.size_mb == costs["size_mb"][row]
        assert alone.memory_mb == costs["memory_mb"][row]
        assert alone.latency_ms == pytest.approx(costs["latency_ms"][row], rel=1e-9)


@pytest.mark.parametrize("name", ["nano", "ofa-mbv3"])
def test_counts_of_whole_spaces_need_no_table(name):
    space = load_space(name)
    encoding = IntegerEncoding(space)
    model = CostModel(space, 1000, None)
    found = random_architectures(encoding, np.random.default_rng(0), 40)
    costs = model.costs_of_genes(encoding.encode_all(found), encoding)
    assert set(costs) == set(model.metrics) == {"macs", "params", "size_mb", "memory_mb"}
    for row, architecture in enumerate(found):
        signatures = lower(space, architecture, 1000)
        assert costs["macs"][row] == total_macs(signatures)
        assert costs["params"][row] == total_params(signatures)
        assert costs["size_mb"][row] == total_params(signatures) * 4 / 1e6
    assert model.costs(found[0]).latency_ms is None


def with_energy(table, unknown=()):
    """The table with made-up energies of all blocks but some."""
    entries = {
        key: entry.model_copy(update={"energy_mj": None if key in unknown else 3 * entry.median_ms + 0.01})
        for key, entry in table.entries.items()
    }
    return table.model_copy(update={"entries": entries})


def test_energy_is_the_plain_sum_of_all_blocks(nano, encoding, table):
    known = with_energy(table)
    model = CostModel(nano, 10, known)
    assert model.metrics[-1] == "energy_mj"
    found = random_architectures(encoding, np.random.default_rng(0), 10)
    energies = model.costs_of_genes(encoding.encode_all(found), encoding)["energy_mj"]
    for architecture, energy in zip(found, energies, strict=True):
        blocks = [known.entries[block.key].energy_mj for block in lower(nano, architecture, 10)]
        assert energy == pytest.approx(sum(blocks))
        assert model.costs(architecture).energy_mj == pytest.approx(sum(blocks))
    classes = CostModel(nano, 37, known).costs(found[0]).energy_mj  # between two measured counts of classes
    assert energies[0] < classes
    lacking = CostModel(nano, 10, with_energy(table, unknown=[min(table.entries)]))
    assert "energy_mj" not in lacking.metrics and lacking.costs(found[0]).energy_mj is None
    with pytest.raises(UserError, match="no cost metric 'energy_mj'"):
        lacking.cheapest("energy_mj")


def test_memory_is_of_the_targets_batch_and_precision(nano, table, encoding):
    largest = nano.largest()
    values = network_peak_values(plan_network(nano, largest, 10))
    assert CostModel(nano, 10, None).costs(largest).memory_mb == values * 4 / 1e6
    for precision, batch, size in (("fp32", 8, 4), ("int8", 1, 1), ("bf16", 3, 2)):
        target = Target(backend="openvino", precision=precision, batch=batch)
        model = CostModel(nano, 10, table.model_copy(update={"target": target}))
        assert model.costs(largest).memory_mb == pytest.approx(values * size * batch / 1e6)
        genes = encoding.encode(largest)[None]
        assert model.costs_of_genes(genes, encoding)["memory_mb"][0] == model.costs(largest).memory_mb


def tiny(nano):
    """Few enough architectures to try all."""
    return nano.model_copy(
        update={"stages": nano.stages[:2], "expansions": (2.0, 4.0), "depths": (1, 2), "name": "tiny"}
    )


@pytest.mark.parametrize("metric", ["macs", "params", "size_mb", "memory_mb", "latency_ms", "energy_mj"])
def test_cheapest_of_all(nano, metric):
    space = tiny(nano)
    encoding = IntegerEncoding(space)
    model = CostModel(space, 10, with_energy(make_table(space)))
    ranges = [range(low, high + 1) for low, high in zip(encoding.lower, encoding.upper, strict=True)]
    every = np.array(list(itertools.product(*ranges)), dtype=np.int64)
    costs = model.costs_of_genes(every, encoding)[metric]
    architecture, cost = model.cheapest(metric)
    assert cost == pytest.approx(costs.min(), rel=1e-12)
    assert getattr(model.costs(architecture), metric) == cost


def test_cheapest_of_a_space_too_large_to_try(model, nano, encoding):
    architecture, cost = model.cheapest("latency_ms")
    genes = uniform_depth_genes(encoding, np.random.default_rng(0), 20_000)
    assert cost <= model.costs_of_genes(genes, encoding)["latency_ms"].min()
    assert nano.contains(architecture)
    assert (
        CostModel(load_space("ofa-mbv3"), 10, None).cheapest("macs")[0] == load_space("ofa-mbv3").smallest()
    )


def test_a_hundred_thousand_rows_within_a_second(model, encoding):
    genes = uniform_depth_genes(encoding, np.random.default_rng(0), 100_000)
    model.costs_of_genes(genes[:1], encoding)
    start = time.process_time()
    model.costs_of_genes(genes, encoding)
    assert time.process_time() - start < 1


def test_a_resolution_that_the_table_lacks(table):
    space = load_space("nano")
    model = CostModel(space, 10, table)
    encoding = IntegerEncoding(space)
    covered = model.costs(space.largest(32)).latency_ms
    genes = encoding.encode_all([space.largest(32), space.largest(48)])
    assert model.costs_of_genes(genes[:1], encoding)["latency_ms"][0] == pytest.approx(covered)
    for ask in (
        lambda: model.costs(space.largest(48)),
        lambda: model.costs_of_genes(genes, encoding),
        lambda: model.cheapest("latency_ms"),
    ):
        with pytest.raises(UserError, match=r"no resolution (40|48), only 28, 32; profile again"):
            ask()
    assert model.cheapest("macs")[0] == space.smallest()


def test_wrong_metrics_and_spaces(nano, table, model, encoding):
    with pytest.raises(UserError, match="'top1'"):
        model.cheapest("top1")
    with pytest.raises(UserError, match="give a latency table"):
        CostModel(nano, 10, None).cheapest("latency_ms")
    with pytest.raises(UserError, match=r"of space 'nano' .* 'ofa-mbv3'"):
        CostModel(load_space("ofa-mbv3"), 10, table)
    with pytest.raises(ValueError, match="another space"):
        model.costs_of_genes(np.zeros((1, len(encoding)), np.int64), IntegerEncoding(load_space("nano")))


def test_no_rows(model, encoding):
    costs = model.costs_of_genes(np.zeros((0, len(encoding)), np.int64), encoding)
    assert all(len(values) == 0 for values in costs.values())
