"""What is measured: blocks, whole networks and an empty call, compiled for a target and ready to run."""

from __future__ import annotations

import numpy as np
from torch import nn

from nat2deploy.blocks import SubNetwork, build_block, reset_seeded
from nat2deploy.cost.network_choice import Network
from nat2deploy.engines.base import Array, Borders, Engine
from nat2deploy.engines.quantise import random_calibration
from nat2deploy.engines.registry import compile_model
from nat2deploy.measure.clock import Run
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Target


def random_input(engine: Engine, rng: np.random.Generator) -> Array:
    """Draw an input of the engine's shape and type: normal noise, or any bytes where it takes uint8."""
    if engine.input_type is np.uint8:
        return rng.integers(0, 256, engine.input_shape, dtype=np.uint8)
    return rng.standard_normal(engine.input_shape, dtype=np.float32)


def prepare_block(signature: BlockSignature, target: Target, rng: np.random.Generator) -> Run:
    """Compile a block as it is inside a network, with fresh weights and random input."""
    shape = (target.batch, *signature.input_shape)
    engine = compile_model(
        build_block(signature).eval(),
        target,
        shape,
        calibration=random_calibration(target, shape, 0),
        borders=Borders(input=signature.kind != "stem", output=signature.kind != "classifier"),
    )
    return engine.prepare(random_input(engine, rng))


def compile_network(network: Network, target: Target, seed: int) -> Engine:
    """Compile a whole network with weights of ``seed``.

    Raises:
        UserError: the target's backend is missing, or cannot run the network here.
    """
    side = network.architecture.resolution
    shape = (target.batch, 3, side, side)
    module = SubNetwork(network.plan)
    reset_seeded(module, seed)
    calibration = random_calibration(target, shape, seed)
    return compile_model(module.eval(), target, shape, calibration=calibration)


def prepare_network(network: Network, target: Target, seed: int) -> Run:
    """Compile a whole network with weights and input of ``seed``."""
    engine = compile_network(network, target, seed)
    return engine.prepare(random_input(engine, np.random.default_rng(seed)))


def prepare_nothing(target: Target) -> Run:
    """An engine of the target's backend that computes next to nothing: what remains is the cost of a call."""
    shape = (target.batch, 8)
    engine = compile_model(nn.ReLU(), target.model_copy(update={"precision": "fp32"}), shape)
    return engine.prepare(np.zeros(shape, np.float32))
