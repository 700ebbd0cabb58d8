"""What was measured of a bundle, and where: the one file of it that differs from export to export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from nat2deploy.deploy.manifest import MANIFEST_NAME, Count, Parity, Quantity, Sha256
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, sha256, write_text
from nat2deploy.target import Fingerprint

EVIDENCE_NAME = "evidence.json"
HERE = "here"
_LONGEST_NAME = 300


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(_Part):
    """Latency of one run, with a 95 % interval of the median."""

    median_ms: Quantity
    p95_ms: Quantity
    p99_ms: Quantity
    ci_low_ms: Quantity
    ci_high_ms: Quantity
    samples: Count


class LatencyEvidence(Timing):
    """The same on ``fingerprint``'s machine; with early exits that of all stages, the worst case."""

    fingerprint: Fingerprint


class StagesEvidence(_Part):
    """Of a network with early exits: the latency of an image that leaves at each, and the expected one.

    ``expected_ms`` is the mean of the ``exits``' medians, weighed by the manifest's shares of test images; of
    a batch, whose last image decides, as ``deploy.runner.expected`` says.
    """

    exits: tuple[Timing, ...]
    expected_ms: Quantity


class DeviceEvidence(_Part):
    """What one machine showed: ``device`` is ``here`` for the one that exported, or the host's name."""

    device: Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]
    when: AwareDatetime
    parity: Parity
    latency: LatencyEvidence
    stages: StagesEvidence | None = None


class EvidenceFile(_Part):
    """The file: ``manifest`` is the SHA-256 of the manifest that it is about, ``digest`` of all the rest."""

    schema_version: Literal[1] = 1
    manifest: Sha256
    measured: tuple[DeviceEvidence, ...] = ()
    digest: Sha256


def write_evidence(folder: Path, measured: Sequence[DeviceEvidence]) -> None:
    """Write the evidence of the bundle in ``folder``, whose manifest stays as it is."""
    content = {
        "schema_version": 1,
        "manifest": sha256(folder / MANIFEST_NAME),
        "measured": [one.model_dump(mode="json") for one in measured],
    }
    text = json.dumps({**content, "digest": _digest(content)}, indent=1)
    write_text(folder / EVIDENCE_NAME, text + "\n")


def read_evidence(folder: Path, what: str) -> tuple[DeviceEvidence, ...]:
    """Read the evidence of the bundle in ``folder``; ``what`` starts the message of an error.

    Raises:
        UserError: missing, damaged, or of another manifest than the one there.
    """
    path = folder / EVIDENCE_NAME
    if not path.exists():
        raise UserError(f"{what}: {EVIDENCE_NAME} is missing; export it again")
    content = read_json(path, f"evidence of {what},")
    found = parse(EvidenceFile, content, f"{what}: {EVIDENCE_NAME}")
    if _digest({name: value for name, value in content.items() if name != "digest"}) != found.digest:
        raise UserError(f"{what}: {EVIDENCE_NAME} is changed (digest differs); export it again")
    if sha256(folder / MANIFEST_NAME) != found.manifest:
        raise UserError(f"{what}: {MANIFEST_NAME} is changed (hash differs); export it again")
    return found.measured


def on_machine(measured: Sequence[DeviceEvidence], machine: Fingerprint) -> DeviceEvidence | None:
    """Return the newest evidence of a machine like this one, else the first of any, None without one."""
    same = [one for one in measured if one.latency.fingerprint.same_machine(machine)]
    return same[-1] if same else next(iter(measured), None)


def with_newer(measured: Sequence[DeviceEvidence], newer: DeviceEvidence) -> tuple[DeviceEvidence, ...]:
    """Add evidence; it takes the place of what the same device on the same kind of machine showed before."""
    kept = [
        one
        for one in measured
        if one.device != newer.device or not one.latency.fingerprint.same_machine(newer.latency.fingerprint)
    ]
    return (*kept, newer)


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
