"""What we measure and deploy on: the target, its profile file and the fingerprint of a machine."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nat2deploy.clock_state import ClockState
from nat2deploy.errors import UserError
from nat2deploy.files import parse, parse_toml
from nat2deploy.gpu import check_visible, gpu_facts, gpu_libraries
from nat2deploy.machine import lasting_facts, machine_facts
from nat2deploy.plugins import known, load_plugin, plugin_names
from nat2deploy.precision import Precision
from nat2deploy.shipped import exists, find_file

Backend = str
"""A name of ``PRECISIONS``, or of a plug-in."""
DeviceKind = Literal["cpu", "cuda"]

PRECISIONS: dict[DeviceKind, dict[Backend, tuple[Precision, ...]]] = {
    "cpu": {
        "onnxruntime": ("fp32", "int8"),
        "openvino": ("fp32", "bf16", "int8"),
        "torch": ("fp32",),
    },
    "cuda": {
        "torch": ("fp32", "fp16", "bf16"),
        "onnxruntime": ("fp32", "fp16"),
        "tensorrt": ("fp32", "fp16", "int8"),
        "tensorrt-rtx": ("fp32", "fp16", "int8"),
    },
}
"""The number formats that each backend of nat2deploy runs networks in, by kind of device."""
_LONGEST_FACTS = 4000
_SAME_MEMORY = 0.02
_OWN = tuple(dict.fromkeys(name for backends in PRECISIONS.values() for name in backends))


class Runs(Protocol):
    """What a plug-in's backend says of itself: the number formats that it runs, by kind of device."""

    precisions: Mapping[str, tuple[Precision, ...]]


def runs_on(kind: DeviceKind) -> dict[Backend, tuple[Precision, ...]]:
    """The number formats that each backend runs networks in on a kind of device, plug-ins' included.

    Raises:
        UserError: a plug-in that cannot be loaded.
    """
    found = dict(PRECISIONS[kind])
    for name in plugin_names("backend", _OWN):
        formats = tuple(_plugin(name).precisions.get(kind, ()))
        if formats:
            found[name] = formats
    return found


def _plugin(name: str) -> Runs:
    backend: Runs = load_plugin("backend", name, object)
    if not getattr(backend, "precisions", None):
        raise UserError(
            f"backend '{name}' says of no number format that it runs it; see docs/how-to/extend.md"
        )
    return backend


def _device(words: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", words):
        raise ValueError(f"'{words}' is no device; give cpu, cuda or cuda:N")
    return "cuda:0" if words == "cuda" else words


class Target(BaseModel):
    """A device with the engine, precision, threads and batch that networks run with on it.

    ``device`` is ``cpu`` or ``cuda:N`` (``cuda`` for ``cuda:0``), where ``threads`` stays 1: the host's one
    thread that hands over work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: Annotated[str, AfterValidator(_device)] = "cpu"
    backend: Annotated[
        str, AfterValidator(known("backend", _OWN)), Field(json_schema_extra={"examples": [*_OWN]})
    ] = "onnxruntime"
    precision: Precision = "fp32"
    threads: int = Field(default=1, ge=1, le=1024)
    batch: int = Field(default=1, ge=1, le=4096)

    @model_validator(mode="after")
    def _runs(self) -> Self:
        where = "" if self.kind == "cpu" else f" on {self.device}"
        runs = PRECISIONS[self.kind].get(self.backend)
        if self.is_plugin:
            runs = tuple(_plugin(self.backend).precisions.get(self.kind, ())) or None
        if runs is None:
            have = ", ".join(PRECISIONS[self.kind])
            raise ValueError(f"backend {self.backend} does not run on {self.device}; choose from {have}")
        if self.precision not in runs:
            raise ValueError(f"backend {self.backend} runs {' and '.join(runs)}{where}, not {self.precision}")
        if self.kind == "cuda" and self.threads != 1:
            raise ValueError(f"{self.threads} threads mean nothing on a GPU; leave threads at 1")
        return self

    @property
    def kind(self) -> DeviceKind:
        """``cpu`` or ``cuda``."""
        return "cpu" if self.device == "cpu" else "cuda"

    @property
    def is_plugin(self) -> bool:
        """Whether the backend is a plug-in's, which measures and makes no bundles."""
        return self.backend not in _OWN

    @property
    def gpu_index(self) -> int:
        """N of ``cuda:N``.

        Raises:
            ValueError: a target on the CPU.
        """
        return int(self.device.removeprefix("cuda:"))

    def __str__(self) -> str:
        """One readable line, such as ``cpu onnxruntime fp32, 1 thread, batch 1``."""
        if self.kind == "cuda":
            return f"{self.device} {self.backend} {self.precision}, batch {self.batch}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.device} {self.backend} {self.precision}, {threads}, batch {self.batch}"


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("write one line, without control characters")
    return text


Line = Annotated[str, AfterValidator(_line)]
"""Words that a terminal shows as they are."""


class Profile(BaseModel):
    """A file of ``profiles/``: a target with how to measure on it and a word for people."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Line
    description: Line = ""
    power_mode: Line = ""
    warmup_ms: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """How long everything measured is warmed up at least, in ms, also where its latency has settled sooner; a
    fifth of the time limit in all at most."""
    target: Target


class Gpu(BaseModel):
    """What a latency on a GPU depends on; what the driver does not tell is None.

    ``clock_mhz`` is the clock of the multiprocessors, in tables that right after measuring; ``clocks_locked``
    whether the user has set it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str | None = None
    clock_mhz: int | None = None
    max_clock_mhz: int | None = None
    clocks_locked: bool | None = None

    def same_gpu(self, other: Gpu) -> bool:
        """Whether latencies of the two can be compared: model, memory and, if known, highest clock agree."""
        return self.name == other.name and not self.differing(other)

    def differing(self, other: Gpu) -> list[str]:
        """Say in words what of ``same_gpu``, beside the name, is not as it is of the other."""
        words = {
            f"compute capability {self.compute_capability}": other.compute_capability
            == self.compute_capability,
            # Drivers keep a little of it for themselves, each version another little.
            f"{self.memory_bytes} bytes of memory": math.isclose(
                self.memory_bytes, other.memory_bytes, rel_tol=_SAME_MEMORY
            ),
            f"at most {self.max_clock_mhz} MHz": None in (self.max_clock_mhz, other.max_clock_mhz)
            or self.max_clock_mhz == other.max_clock_mhz,
        }
        return [word for word, same in words.items() if not same]


class Fingerprint(ClockState):
    """What a latency depends on beside the target: the machine, its clock and the library versions."""

    cpu: str
    flags: list[str]
    cores: int
    system: str
    libraries: dict[str, str]
    gpu: Gpu | None = None
    """The GPU that was measured on."""

    def same_machine(self, other: Fingerprint) -> bool:
        """Whether latencies of the two can be compared: CPU model, instruction sets, cores and GPU agree."""
        if self.gpu is None or other.gpu is None:
            same_gpu = self.gpu is other.gpu
        else:
            same_gpu = self.gpu.same_gpu(other.gpu)
        return same_gpu and (self.cpu, self.flags, self.cores) == (other.cpu, other.flags, other.cores)

    def every_word(self) -> list[str]:
        """Return all the facts that are text."""
        gpu = () if self.gpu is None else (self.gpu.name, self.gpu.compute_capability, self.gpu.driver or "")
        words = [self.cpu, self.system, *self.flags, *self.settings().values(), *gpu]
        return [*words, *self.libraries, *self.libraries.values()]

    def told_apart(self, other: Fingerprint) -> tuple[str, str]:
        """Describe two machines so that what ``same_machine`` finds different is in the words."""
        return self._beside(other), other._beside(self)

    def _beside(self, other: Fingerprint) -> str:
        mine, others = (
            [flag for flag in one.flags if flag not in two.flags]
            for one, two in ((self, other), (other, self))
        )
        words = [str(self)]
        words += [f"with {' '.join(mine)}"] if mine else []
        words += [f"without {' '.join(others)}"] if others and not mine else []
        if self.gpu is not None and other.gpu is not None and self.gpu.name == other.gpu.name:
            words += self.gpu.differing(other.gpu)
        return ", ".join(words)

    def __str__(self) -> str:
        """One readable line, such as ``AMD EPYC, 2 cores, NVIDIA H100``."""
        gpu = "" if self.gpu is None else f", {self.gpu.name}"
        return f"{self.cpu}, {self.cores} cores{gpu}"

    def steady(self) -> dict[str, Any]:
        """Return, as plain JSON values, what stays the same from one minute to the next."""
        return lasting_facts(self.model_dump(mode="json", exclude={"gpu": {"clock_mhz", "clocks_locked"}}))


def check_words(words: Iterable[str]) -> None:
    """Check that what another machine says of itself can be shown and kept.

    Raises:
        ValueError: too long, or characters that a terminal would obey.
    """
    found = list(words)
    if sum(map(len, found)) > _LONGEST_FACTS or not all(map(str.isprintable, found)):
        raise ValueError("the machine's facts are not printable words")


def load_profile(path: Path) -> Profile:
    """Read a profile TOML; a shipped one's name is enough.

    Raises:
        UserError: missing, not TOML, or a field that does not fit.
    """
    path = find_file(path, "profiles")
    if path.name == str(path) and not path.suffix and not exists(path):
        raise UserError(f"no profile '{path}'; `nat2deploy profiles` lists those that come with the package")
    return parse_toml(Profile, path, "profile")


def make_target(
    device: str, backend: str, precision: str, threads: int, batch: int, *, elsewhere: bool = False
) -> Target:
    """Build a target from the words of a command line.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        backend: a ``Backend``.
        precision: a ``Precision``.
        threads: at most this machine's cores.
        batch: images at a time.
        elsewhere: the device is another machine, which has its own number of cores; its CPU is measured.

    Raises:
        UserError: a device, backend or precision that cannot be measured, or a count out of range.
    """
    kind = _kind(device)
    if elsewhere and kind == "cuda":
        raise UserError(
            f"device {device}: other machines are measured on their CPU only; profile on it, there"
        )
    if not elsewhere and threads > (os.cpu_count() or 1):
        raise UserError(f"threads: {threads} asked for, this machine has {os.cpu_count()} cores; use fewer")
    fields = {
        "device": device,
        "backend": backend,
        "precision": precision,
        "threads": threads,
        "batch": batch,
    }
    target = parse(Target, fields, "target")
    if kind == "cuda":
        check_visible(target.gpu_index)
    return target


def make_targets(device: str, precision: str, threads: int, batch: int) -> list[Target]:
    """Build one target for each backend that runs a precision, from the words of a command line.

    Raises:
        UserError: as ``make_target``, or a precision that no backend runs.
    """
    backends = runs_on(_kind(device))
    found = [
        make_target(device, backend, precision, threads, batch)
        for backend, precisions in backends.items()
        if precision in precisions
    ]
    if not found:
        every = ", ".join(dict.fromkeys(p for precisions in backends.values() for p in precisions))
        raise UserError(f"precision: no backend runs '{precision}' on {device}; choose from {every}")
    return found


def fingerprint(device: str = "cpu") -> Fingerprint:
    """Describe the machine that this process runs on, with the GPU where ``device`` is ``cuda:N``.

    Raises:
        UserError: no such GPU is visible.
    """
    here = Fingerprint(**machine_facts())
    if device == "cpu":
        return here
    gpu = Gpu(**gpu_facts(int(device.removeprefix("cuda:"))))
    return here.model_copy(update={"gpu": gpu, "libraries": {**here.libraries, **gpu_libraries()}})


def _kind(device: str) -> DeviceKind:
    try:
        return "cpu" if _device(device) == "cpu" else "cuda"
    except ValueError as error:
        raise UserError(
            f"device '{device}' cannot be measured; `nat2deploy devices` lists what can"
        ) from error
