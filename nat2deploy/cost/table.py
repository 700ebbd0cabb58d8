"""The latency table: measured blocks of a space on one target, as a JSON file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nat2deploy.cost.calibration import Calibration
from nat2deploy.cost.certificate import Certificate
from nat2deploy.cost.measured import MeasuredLatency
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.tail import Tail
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, write_json
from nat2deploy.shipped import exists, find_file
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.space.signature import BlockSignature
from nat2deploy.target import Fingerprint, Target, check_words

Relative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Energy = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Entry(MeasuredLatency):
    """One block, measured alone, and its exact counts for one image.

    ``converged`` says whether the confidence interval came within the precision asked for, in time.
    ``energy_mj`` is the energy of one inference of the target's batch in mJ, None where it was not measured:
    on a CPU that of all packages (RAPL), on a GPU that of the whole card (NVML). The power that these take
    when idle is not subtracted.
    """

    converged: bool
    macs: Count
    params: Count
    activation_bytes: Count
    energy_mj: Energy | None = None


class LatencyTable(BaseModel):
    """Latencies of a space's blocks on a target, with what it takes to trust and repeat them.

    ``entries`` maps a signature's key to its measurement. ``noise_floor`` is the machine's while it measured
    the blocks, ``drift`` its largest while it measured anything, both relative; ``elapsed_s`` is the wall
    time of all measuring. Without a calibration, latencies are plain sums of block medians.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    space: str
    space_fingerprint: str
    resolutions: Annotated[tuple[Annotated[int, Field(ge=8, le=1024)], ...], Field(min_length=1)]
    widths: Annotated[tuple[Annotated[float, Field(gt=0, le=8)], ...], Field(min_length=1)]
    target: Target
    fingerprint: Fingerprint
    nat2deploy: str
    created: datetime.date
    seed: Count
    noise_floor: Relative
    drift: Relative
    elapsed_s: Relative
    calibration: Calibration | None = None
    tail: Tail | None = None
    certificate: Certificate | None = None
    networks: tuple[NetworkEntry, ...] = ()
    """Measured whole networks, by which calibration, tail and certificate can be checked again."""
    network_noise: Relative | None = None
    """Relative noise of the held-out networks' measurement, which decides whether there is a certificate;
    None in tables of old versions."""
    network_slowdown: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """How many times as long the reference workload took while the networks were measured as while the blocks
    were; None in tables of old versions."""
    warmup_ms: Relative = 0.0
    """How long everything was warmed up at least, in ms; 0 in tables of old versions."""
    clock_changes: tuple[str, ...] = ()
    """What changed of the processor's frequency while the table was measured, or slowed it, in words."""
    energy: str | None = None
    """How the blocks' energy was measured, or why it was not; None in tables of old versions."""
    entries: Annotated[dict[str, Entry], Field(min_length=1)]

    @field_validator("entries")
    @classmethod
    def _signatures(cls, entries: dict[str, Entry]) -> dict[str, Entry]:
        for key, entry in entries.items():
            try:
                signature = BlockSignature.parse(key)
            except UserError as error:
                raise ValueError(str(error)) from error
            if (entry.macs, entry.params) != (signature.macs, signature.params):
                raise ValueError(f"'{key}' has wrong counts of MACs or parameters; make the table again")
        return entries

    def check_fingerprint(self, space: SearchSpace) -> None:
        """Check that this table is of ``space``, whatever its resolutions and widths.

        Raises:
            UserError: it is of another space.
        """
        if self.space_fingerprint != space.fingerprint:
            other = f"'{space.name}'" if space.name != self.space else f"another version of '{space.name}'"
            raise UserError(
                f"the latency table is of space '{self.space}' ({self.space_fingerprint}), not of {other} "
                f"({space.fingerprint}); give the space that it was made for, or profile this one"
            )

    def check_covers(self, resolution: int, width: float) -> None:
        """Check that blocks of this resolution and width were measured.

        Raises:
            UserError: they were not.
        """
        for what, value, have in (
            ("resolution", resolution, self.resolutions),
            ("width", width, self.widths),
        ):
            if value not in have:
                held = ", ".join(f"{one:g}" for one in have)
                raise UserError(
                    f"the latency table has no {what} {value:g}, only {held}; "
                    f"profile again with it, or restrict the search to those"
                )

    def noise_of_networks(self) -> float | None:
        """Relative noise of the held-out networks' measurement; None where an old table does not hold it."""
        if self.network_noise is not None or self.certificate is None:
            return self.network_noise
        return self.certificate.noise


def load_table(path: Path) -> LatencyTable:
    """Read a latency table; a shipped one's name is enough.

    Raises:
        UserError: missing, not JSON, another schema version, a field that does not fit, or words that
            a terminal would obey.
    """
    path = find_file(path, "latency_tables")
    if path.name == str(path) and not path.suffix and not exists(path):
        raise UserError(f"no latency table '{path}'; `nat2deploy profiles` lists those of the package")
    value = read_json(path, "latency table")
    if not isinstance(value, dict) or "schema_version" not in value:
        raise UserError(f"{path} is no latency table; make one with `nat2deploy profile`")
    if value["schema_version"] != 1:
        raise UserError(
            f"latency table {path} has schema version {str(value['schema_version'])[:20]}, "
            "this nat2deploy reads 1; profile again, or update nat2deploy"
        )
    table = parse(LatencyTable, value, f"latency table {path}")
    try:
        check_words(table.fingerprint.every_word())
        for word in (table.space, table.nat2deploy, *table.clock_changes, table.energy or ""):
            check_words([word])
    except ValueError as error:
        raise UserError(f"latency table {path}: {error}; check where it comes from") from error
    return table


def save_table(table: LatencyTable, path: Path) -> None:
    """Write a latency table atomically.

    Raises:
        UserError: the place cannot be written to.
    """
    write_json(path, table.model_dump(mode="json"))
