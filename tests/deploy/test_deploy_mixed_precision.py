"""Which layers stay in float, with a real network whose weights make some of them sensitive."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nat2deploy.deploy.mixed_precision import MixedPrecision, quantise_within
from nat2deploy.deploy.parity import Floats, run_all
from nat2deploy.deploy.quantisable import Whole
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.quantiser import layers
from nat2deploy.engines.registry import engine_of_onnx
from nat2deploy.target import Target

SHAPE = (1, 3, 8, 8)
TARGET = Target(precision="int8")


def run(model: bytes, images: Floats) -> Floats:
    return run_all(engine_of_onnx(model, TARGET), images)


@pytest.fixture(scope="module")
def model() -> bytes:
    """Its second convolution sees one channel a thousand times as large as those that decide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4),
        ).eval()  # fmt: skip
    with torch.no_grad():
        net[0].weight[0] *= 1000
        net[2].weight[:, 0] = 0  # the large channel counts for nothing, but its range hides the others
    return to_onnx(net, SHAPE)


@pytest.fixture(scope="module")
def images() -> Floats:
    return np.random.default_rng(0).standard_normal((200, *SHAPE[1:]), dtype=np.float32)


def searched(model: bytes, images: Floats, lowest: float, told: list[str] | None = None) -> MixedPrecision:
    exact = run_all(engine_of_onnx(model, Target()), images).argmax(axis=1)
    return quantise_within(
        Whole(model, images[:64], symmetric=False, method="min-max"),
        model,
        images[:64],
        lowest_top1=lowest,
        top1=lambda some: float(np.mean(run(some, images).argmax(axis=1) == exact)),
        run=run,
        progress=(told if told is not None else []).append,
    )


def test_nothing_stays_in_float_where_8_bits_are_good_enough(model: bytes, images: Floats) -> None:
    told: list[str] = []
    found = searched(model, images, 0.0, told)
    assert found.float_layers == () and len(told) == 1
    assert found.top1 < 0.9


def test_the_sensitive_layers_stay_in_float_and_no_others(model: bytes, images: Floats) -> None:
    every = layers(onnx.load_model_from_string(model))
    found = searched(model, images, 0.95)
    assert found.top1 >= 0.95
    assert 0 < len(found.float_layers) < len(every) == 4
    assert set(found.float_layers) <= {*list(every)[:2]}  # on both sides of the large channel
    exact = run_all(engine_of_onnx(model, Target()), images).argmax(axis=1)
    assert found.top1 == np.mean(run(found.model, images).argmax(axis=1) == exact)
    nodes = onnx.load_model_from_string(found.model).graph.node
    quantised = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    weighted = {node.name: node.input[1] in quantised for node in nodes if node.op_type in ("Conv", "Gemm")}
    assert {name for name, is_int8 in weighted.items() if not is_int8} == set(found.float_layers)


def test_everything_is_float_where_nothing_less_will_do(model: bytes, images: Floats) -> None:
    told: list[str] = []
    found = searched(model, images, 1.1, told)
    assert len(found.float_layers) == 4 and found.top1 == 1.0
    judged = [line for line in told if "in float" in line]
    assert [line.split()[0] for line in judged] == ["0", "4"]  # what even these miss, no fewer reach
