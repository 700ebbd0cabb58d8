"""Every target, and the small pipeline whose files they are fed with."""

from __future__ import annotations

from pathlib import Path

from fuzz import bundles, formats, pixels, texts, weights
from fuzz.target import Target
from nat2deploy.run.config import load_pipeline
from nat2deploy.run.pipeline import run_pipeline
from torture.tiny import write_pipeline


def all_targets(folder: Path, run: Path) -> list[Target]:
    """Every target, fed from ``folder``; whole files are those of a finished pipeline, ``run``."""
    return [
        *texts.targets(),
        *formats.targets(folder, run),
        *bundles.targets(folder, run),
        *pixels.targets(),
        *weights.targets(folder, run),
    ]


def small_run(folder: Path) -> Path:
    """A pipeline that was brought to its end in no time."""
    config = load_pipeline(write_pipeline(folder / "pipeline"))
    search = config.search.model_copy(update={"rounds": 1, "adapt_epochs": 0.1})
    train = config.train.model_copy(update={"epochs": 1.0})
    run_pipeline(config.model_copy(update={"search": search, "train": train}), folder / "run")
    return folder / "run"
