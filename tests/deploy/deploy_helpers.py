"""One small network and how to export it, for all tests of bundles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.evidence import DeviceEvidence
from nat2deploy.deploy.export import export_bundle
from nat2deploy.deploy.judging import Labelled
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.writing import write_bundle
from nat2deploy.target import Target

RESOLUTION = 16
PREPROCESSING = Preprocessing(resolution=RESOLUTION, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
LABELS = ("nought", "één", "two, the second")


@dataclass(frozen=True)
class Budget:
    text: str
    metric: str
    limit: float


@dataclass(frozen=True)
class Costs:
    macs: int = 12_345
    params: int = 678
    latency_ms: float | None = 0.5


def make_net(seed: int = 0) -> nn.Sequential:
    """A network whose classes are spread: [B, 3, 16, 16] to [B, 3]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Flatten(),
            nn.Linear(8 * 64, len(LABELS)),
        ).eval()


def make_images(count: int = 12, height: int = 20, width: int = 28) -> Tensor:
    """Smooth random images, uint8 [N, 3, H, W]."""
    rng = np.random.default_rng(5)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 5, 7)).astype(np.float32))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def make_test(right: float = 0.75, count: int = 40) -> Labelled:
    """Images with targets that the small network of seed 0 says of this share."""
    images = make_images(count)
    said = make_net()(PREPROCESSING.apply(images)).argmax(dim=1)
    wrong = torch.arange(count) >= round(right * count)
    return Labelled("digits", images, (said + wrong) % len(LABELS))


def export_net(out: Path, **changes: Any) -> Manifest:
    """Export the small network to ``out``."""
    arguments: dict[str, Any] = {
        "target": Target(),
        "preprocessing": PREPROCESSING,
        "labels": LABELS,
        "network_id": "abc123",
        "architecture": {"ks": [3], "r": RESOLUTION},
        "space": "tiny",
        "budgets": (Budget("latency<=60s", "latency_ms", 60_000.0), Budget("macs<=1M", "macs", 1e6)),
        "costs": Costs(),
        "test": make_test(),
        "reference_images": make_images(),
        "seed": 0,
        "time_limit_s": 0.3,
        **changes,
    }
    module = arguments.pop("module", None) or make_net()
    return export_bundle(module, out=out, **arguments)


def again(
    bundle: Path,
    change: Callable[[dict], object] = lambda value: None,
    measured: Callable[[DeviceEvidence], DeviceEvidence | None] = lambda one: one,
) -> None:
    """Write the bundle anew with a changed manifest, changed evidence, and hashes that fit its files."""
    with open_bundle(bundle) as opened:
        value = opened.manifest.model_dump()
        kept = [one for one in map(measured, opened.evidence()) if one is not None]
        contents = {name: (opened.folder / name).read_bytes() for name in opened.manifest.files}
    change(value)

    def fill(folder: Path) -> None:
        for name, data in contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)

    write_bundle(bundle, Manifest.model_validate(value), fill, kept)
