"""The settings of every stage, as people write them in TOML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nat2deploy.data.places import at_home
from nat2deploy.errors import KeysError, UserError
from nat2deploy.files import parse_toml
from nat2deploy.precision import Precision
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.forms import BatchSizes, ComputeDevice, ProfiledDevice
from nat2deploy.search.budget import is_target_name, parse_budgets
from nat2deploy.search.settings import Positive, SearchSettings, Seed
from nat2deploy.target import Target

Rate = Annotated[float, Field(gt=0, le=10)]
Seconds = Annotated[float, Field(gt=0)]
Networks = Annotated[int, Field(ge=1, le=10_000)]

Place = Annotated[str, AfterValidator(at_home)]
"""A path, or the name of something that comes with the package; ``~`` is resolved, so runs hold it whole."""


def _each_at_home(files: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return at_home(files) if isinstance(files, str) else tuple(map(at_home, files))


Files = Annotated[
    str | Annotated[tuple[str, ...], Field(min_length=1)],
    AfterValidator(_each_at_home),  # around both: one inside would name itself where neither form fits
]
"""One latency table, or one of each precision that a search chooses from."""


def _names(tables: dict[str, Files]) -> dict[str, Files]:
    for name in tables:
        if not is_target_name(name):
            raise ValueError(f"a target cannot be called '{name[:60]}'; use letters, digits, - and _")
    return tables


Tables = Annotated[dict[str, Files], AfterValidator(_names)]
"""Files of latency tables, by their target's name."""

SuperNetworkFiles = Files
"""A super-network's file or a shipped one's name, or those of several widths, which are used side by side."""
Width = Annotated[float, Field(gt=0)]


def as_tuple(files: SuperNetworkFiles) -> tuple[str, ...]:
    """The names of one or several super-networks."""
    return (files,) if isinstance(files, str) else files


_WORDS = r"auto|[1-9]\d{0,3}|ray|ray://\S+"


def _workers(value: object) -> str:
    text = str(value) if type(value) is int else value
    if isinstance(text, str) and re.fullmatch(_WORDS, text):
        return text
    raise ValueError(f"'{str(value)[:60]}': write auto, a number of processes, ray, or ray://HOST:PORT")


Workers = Annotated[
    str,
    BeforeValidator(
        _workers, json_schema_input_type=Positive | Annotated[str, Field(pattern=f"^({_WORDS})$")]
    ),
    Field(exclude=True),
]
"""Who judges in a search: ``auto``, a number of processes here, ``ray``, or a cluster's ``ray://HOST:PORT``.

It changes how long a search takes and nothing else, so a run neither stores it nor asks for the same again.
"""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def _changed(self, *names: str) -> list[str]:
        """Those of the fields that are not their defaults, whether written out or not."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]


class SpaceConfig(_Config):
    """A search space: a preset or the path of a TOML file, and which resolutions of it to use."""

    name: Place = "nano"
    resolutions: tuple[Positive, ...] | None = None


class SearchedSpace(_Config):
    """Which part of a super-network's space to search."""

    name: Place | None = None
    """The space that the super-network must be of; its own when not given."""
    resolutions: tuple[Positive, ...] | None = None
    """Those that it was trained at when not given."""


class ProfileConfig(_Config):
    """How to make the latency table."""

    table: Place | None = None
    """A table made before; nothing is measured then."""
    tables: Tables = {}
    """Tables made before, of several targets by name or of several precisions of one, instead; the bundle is
    for ``[export] target``."""
    precision: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    """Wanted relative half width of each entry's confidence interval."""
    time_limit_s: Seconds = 300.0
    calibration_networks: Networks = 24
    held_out_networks: Networks = 50
    every_size: Positive = 1
    """Measure each block at every so-manieth of its input sizes only; the others are interpolated."""
    warmup_ms: Annotated[float, Field(ge=0)] = 0.0
    """How long each block and network is warmed up at least; a fifth of the time limit in all at most."""
    device: ProfiledDevice = "cpu"
    """What is measured on: ``cpu``, this machine, or ``ssh://user@host``."""
    python: str = "python3"
    """Python on an ssh device."""
    ssh_options: tuple[str, ...] = ()
    """``KEY=VALUE`` for ssh's -o."""

    @model_validator(mode="after")
    def _reached_by_ssh(self) -> Self:
        if not self.device.startswith("ssh:"):
            given = self._changed("python", "ssh_options")
            if given:
                raise ValueError(f"{given[0]} is for a device ssh://...; leave it out for {self.device}")
        return self


class TrainConfig(_Config):
    """How to train the super-network by progressive shrinking."""

    supernet: SuperNetworkFiles | None = None
    """A super-network made before, or one a width; nothing is trained then."""
    start: Place | None = None
    """A super-network whose weights training starts from, a file or a shipped one's name."""
    schedule: Literal["scaled", "eps-paper"] = "scaled"
    """``eps-paper``: OFAv2's published phases, with their own epochs and rates."""
    epochs: Annotated[float, Field(gt=0)] = 12.0
    """In all phases together."""
    learning_rate: Rate = 0.1
    batch_size: Annotated[int, Field(ge=2)] = 128
    width: Width | Annotated[tuple[Width, ...], Field(min_length=1)] | None = None
    """Width multiplier; the space's first when not given. A pipeline trains a super-network for each of
    several, and searches them side by side."""
    teacher: Literal["first", "extracted"] = "first"
    """The full network as the first phase left it, or extracted anew at each phase's beginning (OFAv2)."""
    sandwich: bool = False
    """Train the largest and the smallest sub-network at each step, too."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an average of the weights that each phase ends with."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of a step's gradient."""
    device: ComputeDevice = "cpu"
    mixed_precision: bool = False
    """bfloat16 on a GPU."""
    curve: Place | None = None
    """A folder for the learning curve: JSON lines, TensorBoard's format, and a picture."""

    @model_validator(mode="after")
    def _schedules_own(self) -> Self:
        changed = self._changed("epochs", "learning_rate")
        if self.schedule == "eps-paper" and changed:
            names = " and ".join(f"{{{name}}}" for name in changed)
            raise KeysError(
                f"{{schedule = 'eps-paper'}} has its own epochs and rates; leave out {names}, or take "
                "{schedule = 'scaled'}"
            )
        return self

    @property
    def widths(self) -> tuple[float, ...]:
        """The widths to train; empty: the space's first."""
        if self.width is None:
            return ()
        return tuple(sorted(set(self.width))) if isinstance(self.width, tuple) else (self.width,)


class SearchConfig(_Config):
    """Everything of one search; stored whole in its run."""

    space: SearchedSpace = SearchedSpace()
    supernet: SuperNetworkFiles
    """A file or a shipped one's name, or one a width, which are searched side by side."""
    start: Place | None = None
    """An earlier run of the space, whose archive's best make the first one."""
    data: str
    table: Files | None = None
    """Of several precisions, the search chooses for each network."""
    tables: Tables = {}
    """Tables of several targets by name, instead; their metrics then bear it, such as ``latency@pi5``."""
    budgets: tuple[str, ...] = ()
    allow_uncertified: bool = False
    measure: Annotated[bool, Field(exclude=True)] = True
    """Measure the front on this machine when it is a table's. A run does not store it: one that was not
    measured may be, later."""
    settings: SearchSettings = SearchSettings()
    workers: Workers = "auto"

    @property
    def supernets(self) -> tuple[str, ...]:
        """The super-networks, whether one or several."""
        return as_tuple(self.supernet)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.table is not None and self.tables:
            raise ValueError("give table, or tables of several targets by name, not both")
        return self


def _milliseconds(text: str) -> float:
    """Read such as ``0.15ms``, in a latency budget's form."""
    (budget,) = parse_budgets([f"latency<={text}"])
    return budget.limit


def _duration(text: str) -> str:
    try:
        _milliseconds(text)
    except UserError:
        raise ValueError(f"'{text[:60]}': write a latency, such as 0.15ms") from None
    return text


class ExportConfig(_Config):
    """Which network of the front becomes a bundle, and for which engine."""

    network: str = "best"
    engine: Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"] = "onnxruntime"
    device: ComputeDevice | None = None
    """``cuda`` for ONNX Runtime on a GPU; the engine's own when not given."""
    precision: Precision | None = None
    """That of the run's latency table when not given."""
    target: str | None = None
    """Which of the run's targets it is for, where there are several."""
    batch: BatchSizes | None = None
    """``8``, or for TensorRT a range: ``1:8``, or ``1:4:8`` with the one to be fastest at."""
    sm: Annotated[tuple[Positive, ...], AfterValidator(lambda sm: tuple(dict.fromkeys(sm)))] = ()
    """Compute capabilities, such as 86 for 8.6, that TensorRT for RTX compiles ahead for."""
    save_optimised: bool = False
    """Add ONNX Runtime's graph as it is optimised for this machine, which starts faster."""
    calibration_method: Literal["min-max", "entropy", "percentile"] = "min-max"
    calibration_images: Positive = 256
    """Images of the training split, each class in its share, that show int8 how large activations get."""
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """How far top-1 in int8 may lie below float's, as a share; layers stay in float for it. Without it 0.005,
    and any where the search chose int8: the accuracy that it promised was that of 8 bits."""
    int8_layers: Literal["all", "faster"] = "all"
    """int8: which layers get 8 bits: all, or those that are faster in them, measured on this machine."""
    qat_epochs: Annotated[float, Field(ge=0)] = 0.0
    """int8: epochs of quantisation-aware fine-tuning before the network is exported."""
    qat_learning_rate: Rate = 0.002
    seed: Seed | None = None
    """Draws the calibration images; the search's when not given."""
    stages: bool = False
    """Deploy a network with several exits as stages that stop when they are sure, not as one ensemble."""
    expected_latency: Annotated[str, AfterValidator(_duration)] | None = None
    """Of stages: the expected latency that thresholds keep, such as ``0.15ms``, with accuracy at its best."""
    stage_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of stages: the top-1 that thresholds keep, a share, with the expected cost at its lowest."""
    stage_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of stages: how far below the ensemble's top-1 may lie, a share; 0.005 where nothing is asked for."""
    confidence: Literal["max-softmax", "margin", "entropy"] | None = None
    """Of stages: how sure an exit is; the measure that serves best on validation images when not given."""

    @model_validator(mode="after")
    def _of_stages(self) -> Self:
        goals = [self.expected_latency, self.stage_accuracy, self.stage_accuracy_drop]
        given = [one for one in (*goals, self.confidence) if one is not None]
        if given and not self.stages:
            raise KeysError(
                "{expected_latency}, {stage_accuracy}, {stage_accuracy_drop} and {confidence} are for "
                "{stages = true}; add that, or leave them out"
            )
        if sum(one is not None for one in goals) > 1:
            raise KeysError("give one of {expected_latency}, {stage_accuracy} and {stage_accuracy_drop}")
        if self.stages and (self.engine != "onnxruntime" or self.device not in (None, "cpu")):
            raise KeysError(
                "{stages}: they run in onnxruntime on the CPU; without them the network is exported as one "
                "graph"
            )
        on_cpu = self.engine in ("onnxruntime", "openvino") and self.device in (None, "cpu")
        if self.int8_layers == "faster" and not on_cpu:
            raise KeysError("{int8_layers = 'faster'} is for onnxruntime or openvino on the CPU")
        if self.stages and self.save_optimised:
            raise KeysError("{save_optimised} is for a network of one file, {stages} have several")
        return self

    @property
    def expected_latency_ms(self) -> float | None:
        """The expected latency to keep, in ms."""
        return None if self.expected_latency is None else _milliseconds(self.expected_latency)

    @property
    def batches(self) -> tuple[int, int, int] | None:
        """The smallest batch, the one to be fastest at (the largest where not said), the largest."""
        if self.batch is None:
            return None
        sizes = [int(word) for word in self.batch.split(":")]
        return (sizes[0], sizes[-1] if len(sizes) < 3 else sizes[1], sizes[-1])


class PipelineConfig(_Config):
    """The whole way: profile, train, search, fine-tune, export and verify."""

    data: str
    budgets: tuple[str, ...] = ()
    seed: Seed = 0
    """Drives everything random; ``[search]`` and ``[finetune]`` may have one of their own."""
    allow_uncertified: bool = False
    workers: Workers = "auto"
    space: SpaceConfig = SpaceConfig()
    target: Target = Target()
    profile: ProfileConfig = ProfileConfig()
    train: TrainConfig = TrainConfig()
    search: SearchSettings = SearchSettings()
    finetune: FinetuneConfig = FinetuneConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        tables = self.profile.tables
        if self.profile.table is not None and tables:
            raise ValueError("profile: give table, or tables of several targets by name, not both")
        if tables and self.export.target not in tables and (len(tables) > 1 or self.export.target):
            raise ValueError(f"export: choose the bundle's target from {', '.join(tables)}")
        if self.export.target is not None and not tables:
            raise ValueError(
                "export: target is one of [profile.tables], of which there are none; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_seed(self) -> Self:
        """Give this seed to the stages that have none: what is stored says which one counts."""
        for name in ("search", "finetune"):
            stage: BaseModel = getattr(self, name)
            if "seed" not in stage.model_fields_set:
                object.__setattr__(self, name, stage.model_copy(update={"seed": self.seed}))
        return self


def load_pipeline(path: Path) -> PipelineConfig:
    """Read a pipeline TOML.

    Raises:
        UserError: missing, not TOML, or a key that does not fit.
    """
    return parse_toml(PipelineConfig, path, "config")
