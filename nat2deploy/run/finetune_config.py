"""The settings of fine-tuning, as people write them in TOML; NAT2's own by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from nat2deploy.errors import KeysError, UserError
from nat2deploy.run.forms import ComputeDevice
from nat2deploy.search.budget import cost_metric
from nat2deploy.search.presets import under_given
from nat2deploy.search.settings import Seed

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    # The first author's released code; where it is not followed, see training.phases.
    "nat2": {
        "phases": 2,
        "epochs": 150.0,
        "patience": 30,
        "learning_rate": 1e-4,
        "final_rate": 1e-8,
        "optimiser": "by-exits",
        "weight_decay": 5e-4,
        "batch_size": 64,
        "warmup_epochs": 0.0,
        "clip": 0.0,
        "label_smoothing": 0.0,
        "distil": False,
        "exit_weights": "unif",
        "prune": ("none",),
    },
}
"""Values of ``FinetuneConfig`` by preset; what one does not name keeps its default."""

_ONLY_WITH: Mapping[str, tuple[str, Any]] = {
    "exit_weights": ("method", "aep"),
    "prune": ("method", "aep"),
    "prune_tolerance": ("method", "aep"),
    "measure": ("method", "aep"),
    "patience": ("phases", 2),
    "validate_each_epoch": ("phases", 1),
}
"""Settings that do something only where another one has a value."""


def _prune_by(text: str) -> str:
    if text in ("none", "accuracy"):
        return text
    try:
        return cost_metric(text)
    except UserError as error:
        raise ValueError(f"{error}, or none, or accuracy") from error


PruneBy = Annotated[str, AfterValidator(_prune_by)]


class FinetuneConfig(BaseModel):
    """How to fine-tune networks of a front.

    ``preset`` gives others to all that is not set: ``nat2`` is that paper's post-processing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    preset: Literal["ours", "nat2"] = "ours"
    method: Literal["plain", "aep"] = "plain"
    """``aep``: all earlier exits are trained along, their outputs are summed, and exits are pruned."""
    phases: Literal[1, 2] = 1
    """2: find the best number of epochs, then train on training and validation images for as many."""
    epochs: Annotated[float, Field(gt=0)] = 10.0
    """Of two phases the most that the first one may take."""
    patience: Annotated[int, Field(ge=1)] = 30
    """Of two phases: epochs without a better validation accuracy that end the first one."""
    validate_each_epoch: bool = True
    """Of one phase: keep the validation accuracy and loss after each epoch, not only the last one's."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.01
    final_rate: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Where the cosine ends."""
    optimiser: Literal["sgd", "adamw", "by-exits"] = "sgd"
    """``by-exits``: AdamW for a super-network with early exits, else SGD (NAT2)."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    """One, or a tenth of the epochs where that is less, when not given."""
    clip: Annotated[float, Field(ge=0)] = 5.0
    """Largest norm of a step's gradient; 0: no limit."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    distil: bool = True
    """Follow the largest sub-network too."""
    exit_weights: Literal["unif", "asc", "desc", "mix", "learned"] = "unif"
    """Of ``aep``: of the exits' losses and outputs."""
    prune: Annotated[tuple[PruneBy, ...], Field(min_length=1)] = ("accuracy",)
    """Of ``aep``: which exits are kept. ``none``: all; ``accuracy``: the state with the best validation
    accuracy within the budgets; costs, such as ``latency``: the cheapest of those that are nearly as good."""
    prune_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.002
    """How much validation accuracy, as a share of 1, a cheaper state may lose against the best one."""
    measure: bool = True
    """Of ``aep``: where a latency decides and this machine is the table's, measure the exits' states."""
    network: str = "best"
    """Which of the front: ids with commas between, ``best``, or ``all``."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Networks tuned at the same time, each in a process of its own."""
    devices: Annotated[tuple[ComputeDevice, ...], Field(min_length=1)] = ("cpu",)
    """Each network goes to the next free one."""
    seed: Seed = 0

    @model_validator(mode="wrap")
    @classmethod
    def _under_what_is_given(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Put the preset's values under those that are given, and refuse what would do nothing."""
        config = handler(under_given(given, PRESETS))
        if isinstance(given, dict):
            for other, value in dict.fromkeys(_ONLY_WITH.values()):
                idle = [key for key in config._idle(given) if _ONLY_WITH[key] == (other, value)]
                if idle:
                    keys = [f"{{{key}}}" for key in idle]
                    names = " and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]]))
                    one, it = ("is", "it") if len(idle) == 1 else ("are", "them")
                    raise KeysError(
                        f"{names} {one} for {{{other} = {value}}} alone; add that, or leave {it} out"
                    )
        return config

    def _idle(self, given: Mapping[str, Any]) -> list[str]:
        """Which of the settings that were given do nothing.

        What is stored names every setting, also those that do nothing: where what decides is given, too, a
        setting counts only if it is another than without being given.
        """
        found = []
        for key, (other, value) in _ONLY_WITH.items():
            if key not in given or getattr(self, other) == value:
                continue
            alone = type(self).model_fields[key].default
            if other not in given or getattr(self, key) != PRESETS[self.preset].get(key, alone):
                found.append(key)
        return found

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.prune) > 1 and {"none", "accuracy"} & set(self.prune):
            raise KeysError("{prune}: none and accuracy stand alone; several costs may stand together")
        return self

    @classmethod
    def stored(cls, value: Any) -> Any:
        """Leave out of a stored configuration what did nothing; older versions took it without a word."""
        if not isinstance(value, dict):
            return value
        plain = {key: held for key, held in value.items() if key not in _ONLY_WITH}
        try:
            config = cls.model_validate(plain)
        except ValidationError:
            return value  # which whoever reads it then says
        active = {key for key, (other, wanted) in _ONLY_WITH.items() if getattr(config, other) == wanted}
        return plain | {key: held for key, held in value.items() if key in active}

    def of(self, network: str) -> FinetuneConfig:
        """What decides the result for one network: neither which others are tuned beside it, nor where."""
        return self.model_copy(update={"network": network, "workers": 1, "devices": ("cpu",)})
