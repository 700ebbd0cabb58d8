"""Simulated precisions answer as the engines do that run them."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from nat2deploy.blocks import SubNetwork, reset_seeded
from nat2deploy.engines.half import to_half
from nat2deploy.engines.onnx_export import to_onnx
from nat2deploy.engines.onnx_session import open_session
from nat2deploy.engines.quantise import quantise
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.training.simulated_precision import simulate

SHAPE = (1, 3, 28, 28)
IMAGES = torch.randn(64, *SHAPE[1:], generator=torch.Generator().manual_seed(0))


def drawn(space_name, seed):
    """A random sub-network whose normalisation does something."""
    space = load_space(space_name).restrict(resolutions=(28,))
    (architecture,) = random_architectures(IntegerEncoding(space), np.random.default_rng(seed), 1)
    network = SubNetwork(plan_network(space, architecture, 10)).eval()
    reset_seeded(network, seed)
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
            module.weight.data.uniform_(0.5, 1.5, generator=random)
            module.bias.data.normal_(0, 0.3, generator=random)
    return network


def answers(model, *, exact=False):
    """What ONNX Runtime says, with its kernels or, ``exact``, as the file says."""
    session = open_session(model, 1, "the model", exact=exact)
    return np.concatenate([session.run(None, {"input": one[None].numpy()})[0] for one in IMAGES])


def answered(network):
    with torch.inference_mode():
        return network(IMAGES).numpy()


def roundings(network):
    """The distinct steps that tensors are rounded to."""
    steps = (m.steps for name, m in network.named_modules() if name.startswith("rounding_"))
    return sorted({(float(np.float32(scale)), zero) for scale, zero in steps})


def output_of(network):
    """The node whose value a traced network returns."""
    (output,) = (node for node in network.graph.nodes if node.op == "output")
    return output.args[0]


def quantisations(model):
    """The distinct steps of the exported graph's activations."""
    graph = onnx.load_model_from_string(model).graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    return sorted({(float(held[n.input[1]]), int(held[n.input[2]])) for n in nodes})


def distance(these, those):
    """How far, relative to it, the farthest of these steps is from the nearest of those with the same zero."""
    return max(min(abs(s / t - 1) if z == y else np.inf for t, y in those) for s, z in these)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("space", "seed"), [("nano-ee-d", 0), ("nano-me-dp", 1), ("nano-me-dp", 2)])
def test_int8_rounds_the_same_tensors_to_the_same_steps_as_the_exported_file(space, seed, symmetric):
    network = drawn(space, seed)
    model = quantise(to_onnx(network, SHAPE), IMAGES.numpy(), symmetric=symmetric)
    simulated = simulate(network, "int8", IMAGES.split(32), symmetric=symmetric)
    mine, wanted = roundings(simulated), quantisations(model)
    assert len(wanted) > 30
    assert distance(mine, wanted) < 1e-5 and distance(wanted, mine) < 1e-5
    # Kernels of x86 without VNNI have not the room for weights of 8 bits, which is TensorRT's form.
    engine, exact = answers(model, exact=symmetric), answered(network)
    off = np.abs(answered(simulated) - engine)
    assert off.mean() < 0.8 * np.abs(exact - engine).mean()
    scale, _ = dict(simulated.named_modules())[str(output_of(simulated).target)].steps
    assert off.max() < 5.5 * scale  # kernels round halves and sums otherwise here and there


def test_int8_weights_are_those_of_the_exported_file():
    network = drawn("nano-ee-d", 3)
    model = quantise(to_onnx(network, SHAPE), IMAGES.numpy())
    graph = onnx.load_model_from_string(model).graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    simulated = simulate(network, "int8", IMAGES.split(32))
    layers = [m for m in simulated.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    names = [n.input[1] for n in graph.node if n.op_type in ("Conv", "Gemm")]
    sources = {n.output[0]: n.input for n in graph.node if n.op_type == "DequantizeLinear"}
    exported = [
        held[w].astype(np.float32) * held[s].reshape(-1, *[1] * (held[w].ndim - 1))
        for w, s, _ in (sources[name] for name in names)
    ]
    assert len(layers) == len(exported) > 10
    for shape in {w.shape for w in exported}:
        mine = sorted(float(m.weight.detach().abs().sum()) for m in layers if tuple(m.weight.shape) == shape)
        theirs = sorted(float(np.abs(w).sum()) for w in exported if w.shape == shape)
        np.testing.assert_allclose(mine, theirs, rtol=1e-3)


def test_fp16_answers_as_the_half_precision_file():
    network = drawn("nano-ee-d", 4)
    exact = answered(network)
    simulated = answered(simulate(network, "fp16", ()))
    engine = answers(to_half(to_onnx(network, SHAPE)))
    assert 0 < np.abs(engine - exact).mean() < 1e-2 * np.abs(exact).mean()
    assert 0 < np.abs(simulated - exact).mean() < 1e-2 * np.abs(exact).mean()
    np.testing.assert_allclose(simulated, engine, atol=1e-2 * np.abs(exact).max())


def test_fewer_bits_lose_more():
    network = drawn("nano-ee-d", 5)
    exact = answered(network)
    off = [
        np.abs(answered(simulate(network, p, IMAGES.split(32))) - exact).mean()
        for p in ("fp16", "bf16", "int8")
    ]
    assert 0 < off[0] < off[1] < off[2]


def test_the_network_is_left_as_it_was():
    network = drawn("nano-me-dp", 6)
    before = io.BytesIO()
    torch.save(network.state_dict(), before)
    exact = answered(network)
    assert simulate(network, "fp32", ()) is network
    for precision in ("fp16", "bf16", "int8"):
        assert (answered(simulate(network, precision, IMAGES.split(32))) != exact).any()
        assert (answered(network) == exact).all()
    after = io.BytesIO()
    torch.save(network.state_dict(), after)
    assert before.getvalue() == after.getvalue()


def test_a_tensor_that_is_always_zero_stays_so():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    nn.init.zeros_(network[0].weight)
    nn.init.zeros_(network[0].bias)
    assert not answered(simulate(network, "int8", [IMAGES])).any()
