"""A real small network of three exits, trained on the digits, and how to export it as stages."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn import functional as F

from nat2deploy.blocks import SubNetwork
from nat2deploy.cost.model import CostModel
from nat2deploy.data.load import load_data
from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.data.sets import ImageData
from nat2deploy.deploy.export import export_bundle
from nat2deploy.deploy.judging import Labelled
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.stages_plan import StagesPlan
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.exit_stages import exit_stages
from nat2deploy.target import Target
from nat2deploy.training.exits import with_exits

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))
from early_run import early_space

RESOLUTION = 16
WEIGHTS = (0.2, 0.3, 0.5)


@cache
def digits() -> ImageData:
    return load_data("digits", base_resolution=RESOLUTION)


@cache
def space() -> SearchSpace:
    with TemporaryDirectory() as folder:
        return early_space(Path(folder), "several")


def architecture() -> Architecture:
    return space().largest(RESOLUTION)


def preprocessing() -> Preprocessing:
    return Preprocessing(resolution=RESOLUTION, mean=digits().mean, std=digits().std)


@cache
def trained() -> SubNetwork:
    """Its exits get better from one to the next, and are right about most of the digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SubNetwork(plan_network(space(), architecture(), 10))
        network.exit_weights.copy_(torch.tensor(WEIGHTS))
        images = preprocessing().apply(digits().train.images)
        targets = digits().train.targets
        optimiser = torch.optim.AdamW(network.parameters(), lr=2e-2)
        batches = [batch for _ in range(5) for batch in torch.randperm(len(images)).split(64)]
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(batches))
        for batch in batches:
            loss = sum(F.cross_entropy(one, targets[batch]) for one in network.exit_logits(images[batch]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cosine.step()
    return network.eval()


def plan_of(network: SubNetwork, **goal: Any) -> StagesPlan:
    model, exits = CostModel(space(), 10, None), architecture().exits
    costs = [model.costs(with_exits(architecture(), exits[:count])) for count in range(1, len(exits) + 1)]
    weights = tuple(network.exit_weights.tolist())
    return StagesPlan(modules=exit_stages(network), weights=weights, costs=costs, **goal)


def export_staged(out: Path, goal: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    """Export the network as stages to ``out``."""
    data, network = digits(), trained()
    arguments: dict[str, Any] = {
        "target": Target(),
        "preprocessing": preprocessing(),
        "labels": data.labels,
        "network_id": architecture().id,
        "architecture": architecture().to_json(),
        "space": space().name,
        "costs": CostModel(space(), 10, None).costs(architecture()),
        "test": Labelled("digits", data.test.images, data.test.targets),
        "validation": Labelled("digits", data.validation.images, data.validation.targets),
        "reference_images": data.validation.images[:32],
        "seed": 0,
        "time_limit_s": 0.3,
        **changes,
    }
    return export_bundle(network, out=out, stages=plan_of(network, **(goal or {})), **arguments)
