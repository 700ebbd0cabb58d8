"""What we measure and deploy on: the target, its profile file and the fingerprint of a machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nat2deploy.clock_state import ClockState
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_toml
from nat2deploy.machine import machine_facts
from nat2deploy.shipped import find_file

Backend = Literal["onnxruntime", "openvino", "torch"]
Precision = Literal["fp32", "bf16", "int8"]

PRECISIONS: dict[Backend, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "torch": ("fp32",),
}
"""The number formats that each backend runs networks in."""


class Target(BaseModel):
    """A device with the engine, precision, threads and batch that networks run with on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["cpu"] = "cpu"
    backend: Backend = "onnxruntime"
    precision: Precision = "fp32"
    threads: int = Field(default=1, ge=1, le=1024)
    batch: int = Field(default=1, ge=1, le=4096)

    @model_validator(mode="after")
    def _runs(self) -> Self:
        if self.precision not in PRECISIONS[self.backend]:
            have = " and ".join(PRECISIONS[self.backend])
            raise ValueError(f"backend {self.backend} runs {have}, not {self.precision}")
        return self

    def __str__(self) -> str:
        """One readable line, such as ``cpu onnxruntime fp32, 1 thread, batch 1``."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.device} {self.backend} {self.precision}, {threads}, batch {self.batch}"


class Profile(BaseModel):
    """A file of ``profiles/``: a target with how to measure on it and a word for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    power_mode: str = ""
    warmup_ms: float = Field(default=20.0, ge=0.0)
    target: Target


class Fingerprint(ClockState):
    """What a latency depends on beside the target: the machine, its clock and the library versions."""

    cpu: str
    flags: list[str]
    cores: int
    system: str
    libraries: dict[str, str]

    def same_machine(self, other: Fingerprint) -> bool:
        """Whether latencies of the two can be compared: CPU model, instruction sets and cores agree."""
        return (self.cpu, self.flags, self.cores) == (other.cpu, other.flags, other.cores)


def load_profile(path: Path) -> Profile:
    """Read a profile TOML; a shipped one's name is enough.

    Raises:
        UserError: missing, not TOML, or a field that does not fit.
    """
    path = find_file(path, "profiles")
    if path.name == str(path) and not path.suffix and not path.exists():
        raise UserError(f"no profile '{path}'; `nat2deploy profiles` lists those that come with the package")
    return parse(Profile, read_toml(path, "profile"), f"profile {path}")


def make_target(
    device: str, backend: str, precision: str, threads: int, batch: int, *, elsewhere: bool = False
) -> Target:
    """Build a target from the words of a command line.

    Args:
        device: ``cpu``.
        backend: a ``Backend``.
        precision: a ``Precision``.
        threads: at most this machine's cores.
        batch: images at a time.
        elsewhere: the device is another machine, which has its own number of cores.

    Raises:
        UserError: a device, backend or precision that cannot be measured, or a count out of range.
    """
    if device != "cpu":
        raise UserError(f"device '{device}' cannot be measured; `nat2deploy devices` lists what can")
    if not elsewhere and threads > (os.cpu_count() or 1):
        raise UserError(f"threads: {threads} asked for, this machine has {os.cpu_count()} cores; use fewer")
    fields = {
        "device": device,
        "backend": backend,
        "precision": precision,
        "threads": threads,
        "batch": batch,
    }
    return parse(Target, fields, "target")


def make_targets(device: str, precision: str, threads: int, batch: int) -> list[Target]:
    """Build one target for each backend that runs a precision, from the words of a command line.

    Raises:
        UserError: as ``make_target``, or a precision that no backend runs.
    """
    found = [
        make_target(device, backend, precision, threads, batch)
        for backend, precisions in PRECISIONS.items()
        if precision in precisions
    ]
    if not found:
        every = ", ".join(dict.fromkeys(p for precisions in PRECISIONS.values() for p in precisions))
        raise UserError(f"precision: no backend runs '{precision}'; choose from {every}")
    return found


def fingerprint() -> Fingerprint:
    """Describe the machine that this process runs on."""
    return Fingerprint(**machine_facts())
