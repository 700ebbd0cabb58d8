"""The manifest of a bundle: what the network is, what it takes and gives, and the evidence for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.target import Target

MANIFEST_NAME = "manifest.json"
_LONGEST_PATH = 200


def check_relative(path: str) -> str:
    """Return ``path`` when it names a place inside a folder on every system, such as ``model.onnx``.

    Raises:
        ValueError: empty, absolute, with a drive, a backslash, a control character, or a part that is empty,
            ``.`` or ``..``.
    """
    odd = any(character in "\\:" or ord(character) < 32 or ord(character) == 127 for character in path)
    if odd or len(path) > _LONGEST_PATH or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path[:_LONGEST_PATH]!r} is not a plain relative path")
    return path


RelativePath = Annotated[str, AfterValidator(check_relative)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Part):
    """The network's input: ``shape`` is (batch, channels, height, width), float32."""

    name: str
    shape: tuple[Count, Count, Count, Count]
    preprocessing: Preprocessing


class OutputSpec(_Part):
    """The network's output: logits (batch, classes), one label a class."""

    name: str
    labels: Annotated[tuple[str, ...], Field(min_length=1)]


class BudgetSpec(_Part):
    """A limit that the network was searched under, in the metric's own unit (``latency_ms``: ms)."""

    text: str
    metric: str
    limit: Quantity


class CostSpec(_Part):
    """Exact costs, the latency that the table predicted, if there was one, and the size of the weights."""

    macs: Annotated[int, Field(ge=0)]
    params: Annotated[int, Field(ge=0)]
    latency_ms: Quantity | None = None
    size_mb: Quantity | None = None


class Parity(_Part):
    """The engine against PyTorch: largest difference as a share of the largest logit; same first class."""

    images: Count
    max_difference: Quantity
    top1_agreement: Share


class AccuracyEvidence(_Part):
    """Accuracy on the test split, which neither search nor training saw.

    ``float_top1`` is PyTorch's in float, ``agreement`` the share of images with PyTorch's first class.
    """

    dataset: str
    split: Literal["test"] = "test"
    top1: Share
    images: Count
    float_top1: Share | None = None
    agreement: Share | None = None


class PlanSpec(_Part):
    """An engine compiled ahead, and the compute capabilities of its GPUs, such as 86 for 8.6."""

    file: RelativePath
    compute_capabilities: tuple[Count, ...]


class OptimisedSpec(_Part):
    """ONNX Runtime's graph as it was optimised on one machine: for that processor and version alone."""

    file: RelativePath
    onnxruntime: str
    cpu: str
    flags: tuple[str, ...]


class EngineSpec(_Part):
    """What runs the model.

    ``version`` is that of the backend's package at export, empty where it was not there. ``onnx`` is the file
    that engines are compiled from on the device, by ``recipe``. ``batches`` are the smallest batch, the one
    to be fastest at, and the largest.
    """

    version: str
    onnx: RelativePath | None = None
    batches: tuple[Count, Count, Count]
    plans: tuple[PlanSpec, ...] = ()
    recipe: RelativePath | None = None
    optimised: OptimisedSpec | None = None


class QuantisationSpec(_Part):
    """How the network became 8-bit, after ``qat_epochs`` of quantisation-aware fine-tuning.

    Of its ``layers`` (None in bundles of before) two kinds stayed in float: ``slower_layers``, because the
    network was not measured to be faster with them in 8 bits, and ``float_layers``, so that the engine's
    top-1 on validation, ``top1``, lies at most ``max_accuracy_drop`` below PyTorch's in float,
    ``float_top1``; shares all three.
    """

    method: Literal["min-max", "entropy", "percentile"]
    calibration_images: Count
    qat_epochs: Quantity = 0.0
    qat_learning_rate: Quantity | None = None
    layers: Count | None = None
    slower_layers: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    max_accuracy_drop: Share | None = None
    float_top1: Share | None = None
    top1: Share | None = None


class StageSpec(_Part):
    """A part of a network with early exits, and when an image leaves behind it.

    ``file`` holds the ONNX model: from the input, or the features of the stage before, to the logits of an
    exit times its ``weight`` in the ensemble, and the features for the next stage. What an exit answers is
    the sum of the logits up to it over that of the weights. ``threshold`` is the least confidence to leave
    with; without one nobody leaves there, but for the last stage. ``costs`` are of all stages up to this one.
    """

    file: RelativePath
    weight: Quantity
    threshold: Share | None
    costs: CostSpec


class StagedAccuracy(_Part):
    """Early-exit inference on labelled images: its top-1, that with all stages, who leaves at which exit."""

    images: Count
    top1: Share
    ensemble_top1: Share
    shares: tuple[Share, ...]


class SweepPoint(_Part):
    """Other thresholds, one an exit but the last, with what they do on the validation images."""

    thresholds: tuple[Share | None, ...]
    top1: Share
    shares: tuple[Share, ...]


class StagesSpec(_Part):
    """How the network stops early: a measure of ``confidence``, and a threshold an exit.

    The thresholds were fitted on ``validation`` for ``target``, ``sweep`` is what could have been chosen
    instead; what was made small, or kept within a limit, are the costs that ``by`` names. ``expected_ms`` is
    the limit on the expected latency where that was the target. ``merged`` are those of the network's exits,
    counted from 1, at which nobody can leave: too few did to pay for a cut, so their stages are one with the
    next. They count in the ensemble as before, and ``exits`` are the others.
    """

    confidence: Literal["max-softmax", "margin", "entropy"]
    target: str
    expected_ms: Quantity | None = None
    by: Literal["macs", "predicted latency", "measured latency"]
    exits: Annotated[tuple[StageSpec, ...], Field(min_length=1)]
    validation: StagedAccuracy
    test: StagedAccuracy | None = None
    sweep: tuple[SweepPoint, ...] = ()
    merged: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> StagesSpec:
        count = len(self.exits)
        if list(self.merged) != sorted(set(self.merged)) or self.merged[-1:] >= (count + len(self.merged),):
            raise ValueError(f"merged exits {self.merged} beside {count} others")
        if self.exits[-1].threshold is not None:
            raise ValueError("the last stage has a threshold")
        judged = [one.shares for one in (self.validation, self.test) if one is not None]
        if any(len(shares) != count for shares in (*judged, *(point.shares for point in self.sweep))):
            raise ValueError(f"shares are not of {count} exits")
        if any(len(point.thresholds) != count - 1 for point in self.sweep):
            raise ValueError(f"thresholds are not of {count - 1} exits")
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the images that leave at each exit: test images, or validation images where none were judged."""
        return (self.test or self.validation).shares


class Evidence(_Part):
    """What the network was found to be when the bundle was made; latency stands in evidence.json.

    ``engine`` is what was compared with PyTorch; ``device`` says whether that was the target's own.
    """

    engine: str = "the target's"
    device: Literal["verified", "not verified on a device"] = "verified"
    parity: Parity
    accuracy: AccuracyEvidence | None = None


class Manifest(_Part):
    """Everything about a bundle; ``files`` maps each other file of it, but the evidence, to its SHA-256.

    ``origin`` is the id of the front's network that ``network`` was made of, where fine-tuning changed which
    exits it has; ``target_name`` that of the search's target, where it had names.

    Schema 2 keeps measured latency in a file of its own, and has ``engine`` and ``quantisation``. With
    ``stages`` the network is in several files, the first of which is ``model``.
    """

    schema_version: Literal[2] = 2
    version: str
    network: str
    origin: str | None = None
    target_name: str | None = None
    architecture: dict[str, Any]
    space: str
    task: Literal["classification"] = "classification"
    model: RelativePath
    input: InputSpec
    output: OutputSpec
    target: Target
    engine: EngineSpec | None = None
    quantisation: QuantisationSpec | None = None
    stages: StagesSpec | None = None
    budgets: tuple[BudgetSpec, ...] = ()
    costs: CostSpec
    evidence: Evidence
    files: dict[RelativePath, Sha256]

    @property
    def front_network(self) -> str:
        """The id of the front's network that it was made of."""
        return self.origin or self.network

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if MANIFEST_NAME in self.files:
            raise ValueError(f"files lists {MANIFEST_NAME} itself")
        if self.files and self.model not in self.files:
            raise ValueError(f"files does not list the model {self.model}")
        if self.target.backend == "torch":
            raise ValueError(f"a bundle does not run on {self.target}")
        if self.files and self.engine is not None:
            plans = [plan.file for plan in self.engine.plans]
            optional = (self.engine.onnx, self.engine.recipe)
            for name in (*plans, *(name for name in optional if name)):
                if name not in self.files:
                    raise ValueError(f"files does not list the engine's {name}")
        if self.files and self.stages is not None:
            for stage in self.stages.exits:
                if stage.file not in self.files:
                    raise ValueError(f"files does not list the stage {stage.file}")
        if self.input.shape[0] != self.target.batch:
            raise ValueError(f"input batch {self.input.shape[0]} is not the target's {self.target.batch}")
        resolution = self.input.preprocessing.resolution
        if self.input.shape[1:] != (3, resolution, resolution):
            raise ValueError(f"input {self.input.shape[1:]} is not what preprocessing to {resolution} gives")
        if "/" in self.model:
            raise ValueError(f"the model {self.model} lies in a folder of its own")
        if self.target.precision == "int8" and self.quantisation is None:
            raise ValueError("int8 without a quantisation")
        self._check_engine()
        return self

    def _check_engine(self) -> None:
        """Check that the bundle's own runner finds what it needs to build or open the engine."""
        tensorrt = self.target.backend in ("tensorrt", "tensorrt-rtx")
        if tensorrt and (self.engine is None or not self.engine.recipe or not self.engine.onnx):
            raise ValueError(f"engine has no recipe for {self.target.backend}")
        if self.engine is None:
            return
        smallest, best, largest = self.engine.batches
        fits = smallest <= best <= largest and best == self.target.batch
        if not fits or (smallest < largest and not tensorrt):
            raise ValueError(f"engine batches {self.engine.batches} are not those of {self.target}")
