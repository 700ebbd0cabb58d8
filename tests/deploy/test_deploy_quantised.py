"""What quantising a bundle's network needs while it judges the whole validation split."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch
from deploy_helpers import LABELS, make_images
from torch import nn

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.judging import Labelled, inputs_of
from nat2deploy.deploy.making import EngineOptions
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.parity import run_all
from nat2deploy.engines.registry import load_engine
from nat2deploy.target import Target

COUNT = 1201
PREPROCESSING = Preprocessing(resolution=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
IN_FLOAT_MB = COUNT * 3 * 64 * 64 * 4 / 1e6


def test_validation_images_never_lie_in_float_all_at_once(
    export: Callable[..., Manifest], tmp_path: Path
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=8, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, len(LABELS))
        ).eval()
    images = make_images(COUNT)
    targets = module(PREPROCESSING.apply(images)).argmax(dim=1)
    target = Target(precision="int8", batch=8)
    tracemalloc.start()
    manifest = export(
        module=module,
        target=target,
        preprocessing=PREPROCESSING,
        test=None,
        validation=Labelled("smooth", images, targets),
        calibration_images=images[:40],
        options=EngineOptions(max_accuracy_drop=0.0),
        time_limit_s=None,
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / 1e6 < IN_FLOAT_MB / 3
    found = manifest.quantisation
    assert found is not None and found.float_top1 == 1.0
    engine = load_engine(tmp_path / "out" / manifest.model, target)
    said = run_all(engine, inputs_of(PREPROCESSING, images)).argmax(axis=1)
    assert found.top1 == float((said == targets.numpy()).mean())
