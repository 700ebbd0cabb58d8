"""The size of weights against the files that are really exported."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nat2deploy.blocks import SubNetwork
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.weights import weight_bytes
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.quantise import quantise
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import lower, plan_network, total_params
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target


def files(space, architecture, classes) -> tuple[bytes, bytes]:
    """A network's fp32 and int8 files, with statistics as after training: equal constants are stored once."""
    network = SubNetwork(plan_network(space, architecture, classes)).eval()
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.running_mean, part.running_var, part.weight.data, part.bias.data):
                values.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            part.bias.data.normal_(0, 0.1, generator=generator)
    shape = (1, 3, architecture.resolution, architecture.resolution)
    whole = to_onnx(network, shape)
    images = np.random.default_rng(0).standard_normal((2, *shape[1:]), dtype=np.float32)
    return whole, quantise(whole, images)


def weights_of(file: bytes) -> int:
    """Bytes of a file's tensors, the scalars that scale activations apart."""
    found = map(onnx.numpy_helper.to_array, onnx.load_model_from_string(file).graph.initializer)
    return sum(tensor.nbytes for tensor in found if tensor.ndim > 0)


@pytest.mark.parametrize("seed", [3, 4])
def test_of_int8_are_those_of_the_quantised_file(seed):
    space = load_space("nano-me-dp")
    (architecture,) = random_architectures(IntegerEncoding(space), np.random.default_rng(seed), 1)
    found = sum(weight_bytes(block, "int8") for block in lower(space, architecture, 10))
    assert found == pytest.approx(weights_of(files(space, architecture, 10)[1]), rel=1e-3)


def test_sizes_are_those_of_the_files(nano):
    space = load_space("ofa-mbv3").restrict(resolutions=(128,))
    (architecture,) = random_architectures(IntegerEncoding(space), np.random.default_rng(3), 1)
    whole, quantised = files(space, architecture, 1000)
    blocks = lower(space, architecture, 1000)
    assert sum(weight_bytes(b, "fp32") for b in blocks) == pytest.approx(len(whole), rel=0.01)
    assert sum(weight_bytes(b, "int8") for b in blocks) == pytest.approx(len(quantised), rel=0.04)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2), ("int8", None)])
def test_costs_count_the_precision_of_the_tables_target(nano, table, precision, size):
    target = Target(backend="openvino", precision=precision)
    model = CostModel(nano, 10, table.model_copy(update={"target": target}))
    encoding = IntegerEncoding(nano)
    for architecture in random_architectures(encoding, np.random.default_rng(1), 5):
        blocks = lower(nano, architecture, 10)
        wanted = sum(weight_bytes(b, "int8") for b in blocks) if size is None else size * total_params(blocks)
        assert model.costs(architecture).size_mb == wanted / 1e6
        genes = encoding.encode(architecture)[None]
        assert model.costs_of_genes(genes, encoding)["size_mb"][0] == wanted / 1e6
        if size is None:
            assert total_params(blocks) < wanted < 1.3 * total_params(blocks)
