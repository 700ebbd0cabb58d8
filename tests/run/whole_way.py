"""A space and settings so small that the whole way takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nat2deploy.measure import networks
from nat2deploy.measure.interleave import Measurement, measure_interleaved
from torture.tiny import SPACE as TINY_SPACE

CONFIG = """
data = "digits"
budgets = ["latency<=50ms", "params<=20k"]
seed = 3
allow_uncertified = true
[space]
name = "{space}"
[profile]
precision = 0.2
time_limit_s = 2
calibration_networks = 8
held_out_networks = 8
[train]
epochs = 12
learning_rate = 0.05
batch_size = 64
[search]
archive_size = 10
candidates = 4
rounds = 2
population = 16
generations = 3
surrogates = ["bayesian-ridge", "extra-trees"]
surrogate_folds = 3
top = 5
adapt_epochs = 0.5
batch_size = 64
recalibration_images = 128
[finetune]
epochs = 1
batch_size = 64
"""


def write_config(folder: Path) -> Path:
    """Write the tiny space and a config that uses it; returns the config's path."""
    space = folder / "tiny.toml"
    space.write_text(TINY_SPACE)
    config = folder / "config.toml"
    config.write_text(CONFIG.format(space=space))
    return config


@contextmanager
def brief_measurements() -> Iterator[None]:
    """Measure whole networks, as fronts and bundles are, for a quarter of a second at most."""

    def brief(*runs: Any, time_limit_s: float, **options: Any) -> Measurement:
        return measure_interleaved(*runs, time_limit_s=min(0.25, time_limit_s), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "measure_interleaved", brief)
        yield
