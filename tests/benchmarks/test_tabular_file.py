"""The benchmark that is checked in: whole, small, and of the weights and data that it names."""

from __future__ import annotations

import hashlib

import numpy as np

from nat2deploy.cost.table import load_table
from nat2deploy.search.tabular import load_tabular
from nat2deploy.supernet.shipped import find_supernet


def test_the_checked_in_benchmark_answers(repository):
    path = repository / "benchmarks/tabular/nano-ee-d-fashion-mnist.npz"
    table = load_table(repository / "latency_tables/nano-ee-d-28-32px-x86-1-thread.json")
    benchmark = load_tabular(path, table)
    made = benchmark.info.generation
    weights = find_supernet(made.supernet).read_bytes()
    assert made.supernet_sha256 == hashlib.sha256(weights).hexdigest()
    assert path.stat().st_size < 5e6 and len(benchmark) >= 5000
    smallest = benchmark.query(benchmark.space.smallest())
    assert smallest.evaluated and 0.80 < smallest.validation_top1 < 0.84
    assert smallest.costs.latency_ms is not None
    assert len(np.unique(benchmark.genes, axis=0)) == len(benchmark)
    assert benchmark.info.model.held_out["validation"].kendall_tau > 0.75
