"""The files of a run as a report reads them: fields that are new or missing are no fault."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Measured(_File):
    """A latency measured on a device, in ms."""

    median_ms: float
    p95_ms: float | None = None
    p99_ms: float | None = None
    ci_low_ms: float | None = None
    ci_high_ms: float | None = None
    samples: int | None = None


class Network(_File):
    """A network of ``front.json``: validation accuracy with inherited weights, predicted costs by metric."""

    id: str
    architecture: dict[str, Any] = {}
    top1: float
    costs: dict[str, float] = {}
    measured: Measured | None = None
    measured_on: dict[str, Measured] = {}
    feasible: bool = True
    high_tradeoff: bool = False

    @property
    def latencies(self) -> dict[str, Measured]:
        """Measured latencies by the target's name, which is empty for a single target without one."""
        return self.measured_on if self.measured is None else {"": self.measured, **self.measured_on}


class Front(_File):
    """``front.json``."""

    space: str = ""
    data: str = ""
    budgets: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    rounds: int = 0
    evaluations: int = 0
    complete: bool = False
    hypervolume: float | None = None
    note: str = ""
    networks: tuple[Network, ...]


class _Best(_File):
    top1: float | None = None


class Round(_File):
    """An entry of ``history.json``."""

    round: int
    hypervolume: float | None = None
    tau: float | None = None
    surrogate: str | None = None
    evaluations: int | None = None
    best: _Best | None = None


class Evaluated(_File):
    """A line of ``archive.jsonl``; ``version`` counts adaptations of the weights."""

    id: str
    version: int = 0
    role: str = "archive"
    values: dict[str, float]
    architecture: dict[str, Any] = {}
    passed_by: str | None = None
    taken_over: bool = False


class Accuracy(_File):
    """A top-1 accuracy with its 95 % interval."""

    top1: float
    low: float | None = None
    high: float | None = None
    images: int | None = None


class ExitState(_File):
    """One on/off state of a network's exits."""

    exits: tuple[int, ...]
    top1: float
    costs: dict[str, float] = {}
    measured: dict[str, Measured] = {}
    feasible: bool = True
    non_dominated: bool = False
    kept: bool = False


class Epoch(_File):
    """An epoch of fine-tuning; of older versions only the validation accuracy is known."""

    phase: int = 1
    epoch: float
    learning_rate: float | None = None
    training_loss: float | None = None
    top1: float | None = None
    loss: float | None = None


class Tuned(_File):
    """``networks/<id>/finetune.json``; older ones have a ``curve`` of validation accuracies alone."""

    id: str
    config: dict[str, Any] = {}
    validation_before: Accuracy | None = None
    validation_after: Accuracy | None = None
    test: Accuracy | None = None
    kept: bool = True
    architecture: dict[str, Any] = {}
    costs: dict[str, float] = {}
    curve: tuple[float, ...] = ()
    history: tuple[Epoch, ...] = ()
    states: tuple[ExitState, ...] = ()

    @property
    def epochs_done(self) -> tuple[Epoch, ...]:
        """What is known of each epoch, with what there was before the first; none without epochs."""
        done = self.history or tuple(Epoch(epoch=n, top1=top1) for n, top1 in enumerate(self.curve, 1))
        if not done or self.validation_before is None:
            return done
        return (Epoch(epoch=0, top1=self.validation_before.top1), *done)


class _Limit(_File):
    text: str
    metric: str
    limit: float


class _Parity(_File):
    images: int
    max_difference: float
    top1_agreement: float


class _TestAccuracy(_File):
    dataset: str = ""
    top1: float
    images: int


class _Evidence(_File):
    parity: _Parity | None = None
    accuracy: _TestAccuracy | None = None


class _Latency(Measured):
    fingerprint: dict[str, Any] = {}


class _StageLatencies(_File):
    exits: tuple[Measured, ...] = ()
    expected_ms: float


class _OnDevice(_File):
    latency: _Latency
    stages: _StageLatencies | None = None


class _StageCosts(_File):
    macs: float = 0.0


class _Stage(_File):
    threshold: float | None = None
    costs: _StageCosts = _StageCosts()


class _Leaving(_File):
    top1: float
    ensemble_top1: float
    images: int = 0
    shares: tuple[float, ...]


class _SweepPoint(_File):
    top1: float
    shares: tuple[float, ...]


class Stages(_File):
    """How a bundle's network stops early; ``sweep`` is what could have been chosen on validation."""

    confidence: str = ""
    target: str = ""
    expected_ms: float | None = None
    exits: tuple[_Stage, ...]
    validation: _Leaving
    test: _Leaving | None = None
    sweep: tuple[_SweepPoint, ...] = ()


class _Input(_File):
    shape: tuple[int, ...] = ()


class _Output(_File):
    labels: tuple[str, ...] = ()


class _Plan(_File):
    compute_capabilities: tuple[int, ...] = ()


class _Engine(_File):
    batches: tuple[int, ...] = ()
    plans: tuple[_Plan, ...] = ()
    optimised: dict[str, Any] | None = None


class _Quantisation(_File):
    method: str | None = None
    calibration_images: int | None = None
    qat_epochs: float = 0.0
    qat_learning_rate: float | None = None
    slower_layers: tuple[str, ...] = ()
    max_accuracy_drop: float | None = None


class Bundle(_File):
    """A bundle's ``manifest.json``; ``measured`` is of its ``evidence.json``, none without it."""

    network: str
    origin: str | None = None
    target_name: str | None = None
    version: str = ""
    architecture: dict[str, Any] = {}
    target: dict[str, Any] = {}
    engine: _Engine | None = None
    quantisation: _Quantisation | None = None
    input: _Input = _Input()
    output: _Output = _Output()
    budgets: tuple[_Limit, ...] = ()
    costs: dict[str, float | None] = {}
    evidence: _Evidence = _Evidence()
    stages: Stages | None = None
    measured: tuple[_OnDevice, ...] = ()
    files: dict[str, str] = {}

    @property
    def front_network(self) -> str:
        """The id of the front's network that it was made of: that before fine-tuning changed its exits."""
        return self.origin or self.network


class _Check(_File):
    name: str
    ok: bool
    text: str = ""


class _Missed(_File):
    network: str = ""
    checks: tuple[str, ...] = ()


class _LeftOut(_File):
    network: str = ""
    why: str = ""


class Verification(_File):
    """``verification.json`` of a pipeline."""

    network: str = ""
    ok: bool
    checks: tuple[_Check, ...] = ()
    missed: tuple[_Missed, ...] = ()
    left_out: tuple[_LeftOut, ...] = ()
    """Networks that were exported before, and measured over a latency budget."""


class SuperNetwork(_File):
    """What a super-network's file says of itself."""

    space: dict[str, Any] = {}
    classes: int = 1
    version: int = 0
    data: str = ""
    labels: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
