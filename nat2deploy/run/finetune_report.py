"""``finetune.json``: what fine-tuning did to a network of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from nat2deploy.files import parse, read_json
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.front import Measured
from nat2deploy.training.epochs import Epoch
from nat2deploy.training.evaluation import Accuracy


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Judged(_Model):
    """An accuracy with its 95 % interval."""

    top1: float
    low: float
    high: float
    images: int

    @classmethod
    def of(cls, accuracy: Accuracy) -> Judged:
        """From a measured accuracy."""
        low, high = accuracy.interval
        return cls(top1=accuracy.top1, low=low, high=high, images=accuracy.images)


class ExitState(_Model):
    """One on/off state of a network's exits: validation accuracy, and costs by metric.

    Latencies in ``costs`` are the measured ones where there are some. ``non_dominated``: no other state
    within the budgets is as accurate and as cheap in all that was pruned by.
    """

    exits: tuple[int, ...]
    top1: float
    costs: dict[str, float]
    measured: dict[str, Measured] = {}
    """By the target's name, which is empty for a single one without."""
    feasible: bool
    non_dominated: bool
    kept: bool


class FinetuneReport(_Model):
    """``networks/<id>/finetune.json``: validation accuracy before and after, test accuracy once.

    Of two phases ``validation_after`` is that of the first one's best epoch, and of a pruned network the best
    of several: both are a little too high, the test accuracy is not.
    """

    id: str
    """The network's in the front; AEP makes another architecture of it."""
    version: int
    """The super-network's, whose weights were tuned."""
    config: Annotated[FinetuneConfig, BeforeValidator(FinetuneConfig.stored)]
    validation_before: Judged
    validation_after: Judged
    test: Judged
    kept: bool
    """False when tuning validated worse, and the network was left as it was."""
    architecture: dict[str, Any] = {}
    """Of the tuned network."""
    exit_weights: tuple[float, ...] = ()
    epochs: float | None = None
    """Behind the weights."""
    curve: tuple[float, ...] = ()
    """Validation accuracy after each epoch of the first phase where it was judged."""
    history: tuple[Epoch, ...] = ()
    """What each epoch did; reports of older versions have none."""
    costs: dict[str, float] = {}
    feasible: bool = True
    """Whether the tuned network keeps the run's budgets, latencies measured where they were."""
    states: tuple[ExitState, ...] = ()
    """What pruning chose from."""


def read_report(folder: Path) -> FinetuneReport | None:
    """The report in a network's folder, if there is one.

    Raises:
        UserError: a broken one.
    """
    path = folder / "finetune.json"
    if not path.exists():
        return None
    return parse(FinetuneReport, read_json(path, "fine-tuning report"), f"fine-tuning report {path}")
