"""A pipeline that takes seconds, with latencies from a made-up table of another machine."""

from __future__ import annotations

import datetime
from pathlib import Path

from nat2deploy.cost.activations import activation_bytes
from nat2deploy.cost.table import Entry, LatencyTable, save_table
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Fingerprint, Target

SPACE = """
name = "tiny"
resolutions = [16, 20]
widths = [1.0]
kernels = [3, 5]
expansions = [2, 3]
depths = [1, 2]
[stem]
channels = 8
stride = 2
activation = "hswish"
[first_block]
channels = 8
kernel = 3
activation = "relu"
[[stages]]
channels = 16
stride = 2
se = false
activation = "relu"
[[stages]]
channels = 24
stride = 2
se = true
activation = "hswish"
[head]
expansion = 2
features = 4
activation = "hswish"
"""

CONFIG = """
data = "digits"
budgets = ["latency<=50ms", "params<=20k"]
seed = 3
allow_uncertified = true
[space]
name = "{folder}/space.toml"
[profile]
table = "{folder}/table.json"
[train]
epochs = 4
learning_rate = 0.05
batch_size = 64
[search]
archive_size = 10
candidates = 4
rounds = 2
population = 16
generations = 3
objectives = ["latency"]
surrogates = ["bayesian-ridge"]
top = 5
adapt_epochs = 1
batch_size = 64
recalibration_images = 128
[finetune]
epochs = 2
batch_size = 64
"""


def write_pipeline(folder: Path) -> Path:
    """Write space, latency table and config to a folder; returns the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "space.toml"
    path.write_text(SPACE)
    save_table(made_up_table(load_space(str(path))), folder / "table.json")
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder))
    return config


def made_up_table(space: SearchSpace) -> LatencyTable:
    """A table that says that another machine was measured, so that nothing is measured here."""
    return LatencyTable(
        space=space.name,
        space_fingerprint=space.fingerprint,
        resolutions=space.resolutions,
        widths=space.widths,
        target=Target(),
        fingerprint=Fingerprint(
            cpu="made up", flags=[], cores=1, governor="unknown", system="made up", libraries={}
        ),
        nat2deploy="0.1.0",
        created=datetime.date(2026, 1, 1),
        seed=0,
        noise_floor=0.004,
        drift=0.01,
        elapsed_s=1.0,
        entries={s.key: made_up_entry(s, made_up_ms(s)) for s in every_signature(space, (2, 10, 100, 1000))},
    )


def made_up_ms(signature: BlockSignature) -> float:
    """Deterministic, and nowhere near proportional to MACs or parameters."""
    return 0.002 + 1e-8 * signature.macs + 0.001 * ((signature.mid_channels * signature.kernel) % 7)


def made_up_entry(signature: BlockSignature, median_ms: float) -> Entry:
    """An entry of a table that was never measured."""
    return Entry(
        median_ms=median_ms,
        p95_ms=1.1 * median_ms,
        p99_ms=1.2 * median_ms,
        ci_low_ms=0.99 * median_ms,
        ci_high_ms=1.01 * median_ms,
        samples=100,
        converged=True,
        macs=signature.macs,
        params=signature.params,
        activation_bytes=activation_bytes(signature),
    )
