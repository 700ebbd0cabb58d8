"""A bundle on the device that it is for: its own runner's check, its latency there, and the evidence kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.deploy.bundle import Bundle, open_bundle
from nat2deploy.deploy.evidence import DeviceEvidence, LatencyEvidence, with_newer
from nat2deploy.deploy.manifest import MANIFEST_NAME, Parity
from nat2deploy.deploy.stages import stages_evidence
from nat2deploy.deploy.verify import Measured, Verification, exit_name, judge
from nat2deploy.deploy.writing import update_evidence
from nat2deploy.files import parse, sha256
from nat2deploy.measure.interleave import Progress
from nat2deploy.remote.packing import StagedModel
from nat2deploy.remote.ssh import SshSettings
from nat2deploy.remote.ssh_device import SshDevice

Share = Annotated[float, Field(ge=0, le=1)]


class CheckAnswer(BaseModel):
    """What the runner's ``--check`` says; taken on trust no more than other words of a device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Annotated[int, Field(ge=1)]
    max_difference: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    top1_agreement: Share
    ok: bool


class RunnerAnswer(BaseModel):
    """The object that ``run.py --check --json`` prints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: CheckAnswer


def verify_on_device(
    path: Path,
    settings: SshSettings,
    *,
    seed: int,
    time_limit_s: float = 5.0,
    progress: Progress,
    say: Callable[[str], None],
) -> Verification:
    """Verify a bundle on an ssh device, and write what was found into the bundle's evidence.

    The bundle is copied there and checked by its own runner: hashes, and logits against PyTorch's. Latency is
    measured by the same method as latency tables are. Both copies are removed afterwards.

    Args:
        path: a folder or a zip; only its evidence changes, in one step.
        settings: how to reach the device.
        seed: of the measurement.
        time_limit_s: for the measurement.
        progress: told the share done and a line of text.
        say: told in one line when a connection was lost.

    Raises:
        UserError: no bundle or a changed one, one that ssh devices do not run, or a device that cannot be
            reached, lacks something or has too few cores.
    """
    with open_bundle(path) as bundle:
        bundle.check()
        manifest, evidence = bundle.manifest, bundle.evidence()
        identity = sha256(bundle.folder / MANIFEST_NAME)[:16]
        device = SshDevice(settings, manifest.target, say=say)
        progress(0.0, f"copying to {settings.address}")
        machine = device.fingerprint()
        answer = device.check_bundle(bundle.folder, identity)
        found = parse(RunnerAnswer, answer, f"answer of {settings.address}").check
        parity = Parity(**found.model_dump(exclude={"ok"}))
        measurement = device.measure_model(
            _files(bundle),
            manifest.network,
            identity,
            seed=seed,
            time_limit_s=time_limit_s,
            progress=lambda share, text: progress(0.2 + 0.8 * share, text),
        )
        device.finish()
        names = list(measurement.summaries)
        if manifest.stages is not None:
            names = [exit_name(number) for number in range(1, len(manifest.stages.exits) + 1)]
        measured = Measured.of(measurement, names)
        latencies = [LatencyEvidence(**one.latency, fingerprint=machine) for one in measured.exits]
        fresh = DeviceEvidence(
            device=settings.address.host,
            when=datetime.now(UTC).replace(microsecond=0),
            parity=parity,
            latency=LatencyEvidence(**measured.latency.latency, fingerprint=machine),
            stages=None
            if manifest.stages is None
            else stages_evidence(manifest.stages, latencies, manifest.target.batch),
        )
        update_evidence(bundle, with_newer(evidence, fresh))
    return judge(manifest, evidence, machine, parity, measured, where=f"on {settings.address.host}")


def _files(bundle: Bundle) -> Path | StagedModel:
    """What is measured of a bundle."""
    stages = bundle.manifest.stages
    if stages is None:
        return bundle.model
    return StagedModel(
        tuple(bundle.folder / stage.file for stage in stages.exits),
        tuple(stage.weight for stage in stages.exits),
        stages.confidence,
    )
