"""What a profile has measured so far, on disk, so that an interrupted one goes on."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.clock_state import WorkingClock
from nat2deploy.cost.measured import MeasuredLatency, Milliseconds
from nat2deploy.cost.table import Entry, Relative
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, write_json
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.target import Target, fingerprint


class _Chunk(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    reference_ms: Milliseconds
    noise_floor: Relative
    drift: Relative
    elapsed_s: Relative
    clocks: tuple[WorkingClock, ...] = ()


class BlockChunk(_Chunk):
    """Blocks that were measured interleaved, and the machine meanwhile.

    ``reference_ms`` is the reference workload's median, ``call_overhead_ms`` that of an engine that computes
    next to nothing. ``energy`` says how energy was measured, or why not; ``clocks`` are the processor's
    before and after, there with the GPU's.
    """

    call_overhead_ms: Milliseconds
    energy: str = ""
    entries: dict[str, Entry]

    def scaled(self, factor: float) -> dict[str, Entry]:
        """The entries with all latencies times ``factor``."""
        return {key: entry.scaled(factor) for key, entry in self.entries.items()}


class NetworkLatency(MeasuredLatency):
    """A whole network's latency, and whether it came within the precision asked for, in time."""

    converged: bool


class NetworkChunk(_Chunk):
    """Whole networks that were measured interleaved, by the names that their group gave them."""

    entries: dict[str, NetworkLatency]


class PartialProfile(BaseModel):
    """The finished chunks of one profile; ``settings`` is all that they depend on.

    ``profile`` names it on a device that keeps results of its own, so that those of another are never taken.
    """

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any]
    profile: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] = Field(
        default_factory=lambda: secrets.token_hex(8)
    )
    chunks: list[BlockChunk]
    networks: list[NetworkChunk] = []

    @property
    def measured(self) -> set[str]:
        """Keys of the blocks that are done."""
        return {key for chunk in self.chunks for key in chunk.entries}

    @property
    def elapsed_s(self) -> float:
        """Seconds of measuring blocks so far."""
        return math.fsum(chunk.elapsed_s for chunk in self.chunks)

    def network_chunk(self, names: Iterable[str]) -> NetworkChunk | None:
        """Return the networks of these names, where they were measured together; None where they were not.

        Other numbers of networks give other names, and other blocks' latencies other networks.
        """
        wanted = list(names)
        return next((chunk for chunk in self.networks if list(chunk.entries) == wanted), None)

    def differing(self, settings: dict[str, Any]) -> list[str]:
        """The names of those settings that this profile was made with other values of."""
        return [name for name in settings if self.settings.get(name) != settings[name]]

    @property
    def goes_on(self) -> str:
        """What going on with it saves, in words."""
        networks = sum(len(chunk.entries) for chunk in self.networks)
        what = f"{len(self.measured)} blocks" + (f" and {networks} networks" if networks else "")
        return f"going on: {what} were measured before"

    def save(self, path: Path | None) -> None:
        """Write atomically; with None nothing is kept."""
        if path is not None:
            write_json(path, self.model_dump(mode="json"))


def partial_target(path: Path, space: SearchSpace, targets: Sequence[Target]) -> Target | None:
    """Return which of ``targets`` the partial profile at ``path`` was measuring ``space`` on here, if any."""
    found, _ = _read(path)
    if found is None or not targets:
        return None
    machine = fingerprint(targets[0].device).steady()
    wanted = {"space": space.model_dump(mode="json"), "machine": machine}
    if any(found.settings.get(name) != value for name, value in wanted.items()):
        return None
    measuring = found.settings.get("target")
    return next((target for target in targets if target.model_dump(mode="json") == measuring), None)


def kept_aside(path: Path) -> Path:
    """Where a partial profile waits while one of other settings is measured in its place."""
    return path.with_name(f"{path.name}-before")


def open_partial(path: Path | None, settings: dict[str, Any]) -> tuple[PartialProfile, str]:
    """Return the partial profile of these settings, an empty one where there is none; and a word on it.

    It is at ``path``, or waits beside it, where one of other settings is kept: an option that was forgotten
    costs nothing.

    Raises:
        UserError: the place cannot be written to.
    """
    empty = PartialProfile(settings=settings, chunks=[])
    if path is None:
        return empty, ""
    held, word = _read(path)
    if held is not None and not (different := held.differing(settings)):
        return held, held.goes_on
    waiting, _ = _read(kept_aside(path))
    if waiting is not None and waiting.differing(settings):
        waiting = None
    if held is not None and held.measured:
        word = f"beginning anew: {path} is of another {different[0].replace('_', ' ')}; it waits beside it"
        held.save(kept_aside(path))
    elif waiting is not None:
        waiting.save(path)
        kept_aside(path).unlink()
    return (empty, word) if waiting is None else (waiting, waiting.goes_on)


def _read(path: Path) -> tuple[PartialProfile | None, str]:
    """Read a partial profile; None, and why not, where it is not there or is damaged."""
    if not path.exists():
        return None, ""
    try:
        return parse(PartialProfile, read_json(path, "partial profile"), f"partial profile {path}"), ""
    except UserError as error:
        return None, f"beginning anew: {error}"
