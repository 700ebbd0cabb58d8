"""Peak memory against a liveness analysis of the ONNX graphs that are really exported."""

from __future__ import annotations

import math
import time

import numpy as np
import onnx
import pytest

from nat2deploy.blocks import SubNetwork
from nat2deploy.cost.activations import Operator, live_values
from nat2deploy.cost.memory import PeakMemory, network_peak_values
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.sampling import random_architectures, uniform_depth_genes
from nat2deploy.space.search_space import load_space

IN_PLACE = {"Relu", "HardSwish", "HardSigmoid", "Flatten"}


def sizes_of(model: onnx.ModelProto) -> dict[str, int]:
    """Values of each tensor of a graph, by onnx's own shape inference."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {
        value.name: math.prod(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def graph_peak(model: onnx.ModelProto) -> int:
    """Run a graph's nodes in order with a set of live tensors; names of buffers, since some work in place."""
    graph = model.graph
    sizes = sizes_of(model)
    weights = {initialiser.name for initialiser in graph.initializer}
    buffer = {graph.input[0].name: graph.input[0].name}
    reads = []
    for node in graph.node:
        inputs = [buffer[name] for name in node.input if name and name not in weights]
        in_place = node.op_type in IN_PLACE
        buffer[node.output[0]] = inputs[0] if in_place else node.output[0]
        reads.append(inputs)
    last = {name: index for index, inputs in enumerate(reads) for name in inputs}
    last[buffer[graph.output[0].name]] = len(reads)
    for node, inputs in zip(graph.node, reads, strict=True):
        if node.op_type in IN_PLACE:  # allowed where nothing else reads what it overwrites
            readers = [n for n in graph.node if node.input[0] in n.input]
            assert len(readers) == 1 and len(inputs) == 1
    live, peak = {graph.input[0].name}, 0
    for index, node in enumerate(graph.node):
        live.add(buffer[node.output[0]])
        peak = max(peak, sum(sizes[name] for name in live))
        live = {name for name in live if last[name] > index}
    return peak


def export(space, architecture, classes) -> onnx.ModelProto:
    network = SubNetwork(plan_network(space, architecture, classes)).eval()
    shape = (1, 3, architecture.resolution, architecture.resolution)
    return onnx.load_model_from_string(to_onnx(network, shape))


@pytest.mark.parametrize(
    ("name", "count", "classes"),
    [
        ("nano", 4, 10),
        ("nano-me-dp", 8, 10),
        ("nano-me-dp", 2, 4000),  # logits that outweigh feature maps
        ("nano-me-d", 3, 10),
        ("ofa-mbv3", 2, 1000),
    ],
)
def test_is_that_of_the_exported_graph(name, count, classes):
    space = load_space(name)
    encoding = IntegerEncoding(space)
    memory = PeakMemory(space, classes)
    found = random_architectures(encoding, np.random.default_rng(5), count)
    if name != "ofa-mbv3":
        found += [space.smallest(), space.largest(), space.full(space.resolutions[0])]
    peaks = memory.values(encoding.encode_all(found), encoding)
    for architecture, peak in zip(found, peaks, strict=True):
        assert peak == graph_peak(export(space, architecture, classes)), architecture
        assert peak == network_peak_values(plan_network(space, architecture, classes))


@pytest.mark.parametrize("body", ["b", "d", "p", "dp"])
@pytest.mark.parametrize("exits", ["se", "ee", "me"])
def test_the_lookup_is_that_of_the_operators(exits, body):
    space = load_space(f"nano-{exits}-{body}").model_copy(update={"depths": (1, 2, 3, 4, 5, 6)})
    encoding = IntegerEncoding(space)
    memory = PeakMemory(space, 500)
    genes = uniform_depth_genes(encoding, np.random.default_rng(1), 150)
    peaks = memory.values(genes, encoding)
    for row, peak in zip(genes, peaks, strict=True):
        assert peak == network_peak_values(plan_network(space, encoding.decode(row), 500))


@pytest.mark.parametrize("name", ["nano-me-dp", "nano-ee-d", "nano"])
@pytest.mark.parametrize("classes", [10, 3000])
def test_the_cheapest_of_all(name, classes):
    whole = load_space(name)
    few = {"kernels": (3,), "expansions": (3.0,), "depths": (2, 3), "resolutions": (28,)}
    space = whole.model_copy(update={"stages": whole.stages[:2], **few})
    encoding = IntegerEncoding(space)
    counts = tuple(encoding.upper - encoding.lower + 1)
    every = encoding.lower + np.indices(counts).reshape(len(counts), -1).T
    memory = PeakMemory(space, classes)
    cheapest = memory.cheapest(encoding)
    lowest = network_peak_values(plan_network(space, cheapest, classes))
    assert space.contains(cheapest)
    assert lowest == memory.values(np.unique(encoding.repair(every), axis=0), encoding).min()


def test_a_hundred_thousand_rows_within_half_a_second():
    space = load_space("nano-me-dp")
    encoding = IntegerEncoding(space)
    memory = PeakMemory(space, 10)
    genes = uniform_depth_genes(encoding, np.random.default_rng(0), 100_000)
    memory.values(genes[:1], encoding)
    start = time.process_time()
    memory.values(genes, encoding)
    assert time.process_time() - start < 0.5


def test_tensors_are_freed_after_their_last_use():
    program = [Operator((0,), 5), Operator((1,), 7), Operator((1, 2), 2)]
    assert list(live_values([3], program)) == [8, 12, 14]
    assert list(live_values([3], program, [0])) == [8, 15, 17]
    assert list(live_values([3, 100], program[:1])) == [8]
