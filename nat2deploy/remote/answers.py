"""What a device sends back, checked: nothing of it is taken on trust."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nat2deploy.clock_state import ClockState
from nat2deploy.cost.measured import MeasuredLatency, Milliseconds
from nat2deploy.cost.table import Energy, Relative
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.measure.interleave import Measurement
from nat2deploy.measure.statistics import Summary
from nat2deploy.remote.ssh import printable
from nat2deploy.target import Fingerprint, check_words

Positive = Annotated[int, Field(ge=1, le=10**12)]
Text = Annotated[str, AfterValidator(printable)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SummaryAnswer(MeasuredLatency):
    """A ``measure.statistics.Summary``."""

    rounds: Positive


class MeasurementAnswer(_Answer):
    """A ``measure.interleave.Measurement`` with a reference workload."""

    summaries: Annotated[dict[str, SummaryAnswer], Field(min_length=1)]
    converged: dict[str, bool]
    noise_floor: Relative
    reference_ms: Milliseconds
    drift: Relative
    interrupted_share: Annotated[float, Field(ge=0, le=1)]
    rounds: Positive
    discarded_rounds: Annotated[int, Field(ge=0)]
    elapsed_s: Relative
    energy_mj: dict[str, Energy] | None = None
    energy_word: Text = ""
    clocks: tuple[ClockState, ...] = ()
    tail_intervals: None = None
    """No device is asked for them."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.summaries.keys() != self.converged.keys():
            raise ValueError("summaries and convergence are of different candidates")
        if self.energy_mj is not None and self.summaries.keys() != self.energy_mj.keys():
            raise ValueError("summaries and energies are of different candidates")
        for clock in self.clocks:
            check_words(clock.settings().values())
        return self

    def measurement(self) -> Measurement:
        """Return it as the measuring code does."""
        fields = self.model_dump()
        return Measurement(
            **{**fields, "summaries": {n: Summary(**s) for n, s in fields["summaries"].items()}}
        )


class ResultAnswer(_Answer):
    """A job's results: of which job, on which machine, and the groups by name."""

    form: Literal[1]
    job: Sha256
    machine: Fingerprint
    groups: dict[str, MeasurementAnswer]

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        check_machine(self.machine)
        return self


class ProbeAnswer(_Answer):
    """What a device says first."""

    machine: Fingerprint
    memory_bytes: Annotated[int, Field(ge=1 << 24)] | None
    warning: Text | None

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        check_machine(self.machine)
        return self


class ProgressAnswer(_Answer):
    """A line of progress."""

    share: Annotated[float, Field(ge=0, le=1)]
    text: Text


def check_machine(machine: Fingerprint) -> None:
    """Check that a machine's facts are words that can be shown and kept.

    Raises:
        ValueError: too long, control characters, or no cores.
    """
    check_words(machine.every_word())
    if machine.cores < 1:
        raise ValueError("the machine has no cores")


def group_measurement(result: ResultAnswer, job: str, name: str) -> Measurement:
    """Return one group's measurement.

    Raises:
        UserError: the results are of another job, or lack the group.
    """
    if result.job != job:
        raise UserError(f"the results are of another job ({result.job[:12]}, not {job[:12]})")
    if name not in result.groups:
        raise UserError(f"the results lack '{name}'; start measure.py again, it goes on where it was")
    return result.groups[name].measurement()


def parse_result(value: object, what: str) -> ResultAnswer:
    """Check a job's results; ``what`` says where they came from.

    Raises:
        UserError: the first thing that does not fit.
    """
    return parse(ResultAnswer, value, what)
