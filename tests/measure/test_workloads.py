from importlib.util import find_spec

import numpy as np
import pytest
import torch

from nat2deploy.cost.network_choice import Network
from nat2deploy.engines import registry
from nat2deploy.measure import workloads
from nat2deploy.measure.groups import _TILE, Block, Overhead, WholeNetwork
from nat2deploy.measure.prepared import random_input
from nat2deploy.measure.workloads import prepare_candidate
from nat2deploy.space.lowering import every_signature, plan_network
from nat2deploy.target import Target

TARGETS = [
    Target(),
    Target(precision="int8"),
    Target(backend="torch"),
    Target(precision="int8", batch=2),
    *(
        pytest.param(
            Target(backend="openvino", precision=precision, batch=2),
            marks=pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed"),
        )
        for precision in ("fp32", "int8")
    ),
]


@pytest.fixture
def compiled(monkeypatch):
    """Every engine that the workloads compile."""
    engines = []

    def watched(*arguments, **options):
        engines.append(registry.compile_model(*arguments, **options))
        return engines[-1]

    monkeypatch.setattr(workloads, "compile_model", watched)
    return engines


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_kind_of_block_runs(tiny_space, target):
    kinds = {s.kind: s for s in every_signature(tiny_space, (10,))}
    assert {"stem", "mbconv", "head", "classifier"} <= set(kinds)
    for signature in kinds.values():
        assert prepare_candidate(Block(signature, 0), target, np.random.default_rng(0))() is None


def test_blocks_of_an_int8_network_face_the_user_where_the_network_does(tiny_space, compiled):
    types = {}
    for signature in {s.kind: s for s in every_signature(tiny_space, (10,))}.values():
        prepare_candidate(Block(signature, 0), Target(precision="int8"), np.random.default_rng(0))
        engine = compiled[-1]
        output = engine.run(random_input(engine, np.random.default_rng(0)))
        types[signature.kind] = (engine.input_type, output.dtype.type)
    assert types["stem"] == (np.float32, np.uint8)
    assert types["mbconv"] == types["head"] == (np.uint8, np.uint8)
    assert types["classifier"] == (np.uint8, np.float32)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_whole_network_runs_with_weights_of_the_seed(tiny_space, target, compiled):
    architecture = tiny_space.smallest(16, 0.5)
    network = Network(architecture, 7, plan_network(tiny_space, architecture, 7))
    outputs = []
    for seed in (3, 3, 4):
        candidate = WholeNetwork(network, seed)
        assert prepare_candidate(candidate, target, np.random.default_rng(seed))() is None
        images = np.random.default_rng(0).standard_normal((target.batch, 3, 16, 16), dtype=np.float32)
        outputs.append(compiled[-1].run(images))
    assert outputs[0].shape == (target.batch, 7)
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_an_empty_call_runs_on_every_target(target, compiled):
    assert prepare_candidate(Overhead(), target, np.random.default_rng(0))() is None
    assert (compiled[-1].target.precision, compiled[-1].input_type) == ("fp32", np.float32)


def test_weights_repeat_within_a_layer_and_differ_between_layers_and_rows(tiny_space):
    architecture = tiny_space.largest()
    network = Network(architecture, 1000, plan_network(tiny_space, architecture, 1000))
    module = WholeNetwork(network, 0).build()
    large = [
        weight.detach() for weight in module.parameters() if weight.dim() > 1 and weight.numel() > 2 * _TILE
    ]
    assert len(large) >= 3
    for weight in large:
        flat = weight.reshape(-1)
        assert torch.equal(flat[_TILE : 2 * _TILE], flat[:_TILE]) and flat.std() > 0
        assert flat.abs().min() > 1e-30  # nothing that a processor adds up in another way
        rows = weight.reshape(len(weight), -1)
        assert len(torch.unique(rows[:_TILE], dim=0)) == len(rows[:_TILE])
    # An exporter makes equal weights one, and they would stay in the cache.
    assert len({weight.reshape(-1)[:_TILE].numpy().tobytes() for weight in large}) == len(large)
