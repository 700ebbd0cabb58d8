"""A bundle on the device that it is for: its own runner's check, its latency there, and the evidence kept."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from nat2deploy.deploy.bundle import Bundle, open_bundle
from nat2deploy.deploy.evidence import DeviceEvidence, LatencyEvidence
from nat2deploy.deploy.manifest import MANIFEST_NAME, Manifest, Parity
from nat2deploy.deploy.stages import stages_evidence
from nat2deploy.deploy.verify import LATENCIES, Measured, Verification, exit_name, judge
from nat2deploy.deploy.writing import add_evidence
from nat2deploy.errors import UserError
from nat2deploy.files import sha256
from nat2deploy.measure.interleave import Progress
from nat2deploy.remote.bundle_runner import BenchAnswer, CheckAnswer, run_bundle
from nat2deploy.remote.packing import StagedModel
from nat2deploy.remote.ssh import SshSettings
from nat2deploy.remote.ssh_device import SshDevice


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
    measured by the same method as latency tables are, which takes ONNX Runtime on the CPU. Of other engines
    the runner's own timing is told, which is no evidence: no budget is held against it, and none is kept.
    All copies are removed afterwards.

    Args:
        path: a folder or a zip; only its evidence changes, in one step.
        settings: how to reach the device.
        seed: of the measurement.
        time_limit_s: for the measurement.
        progress: told the share done and a line of text.
        say: told in one line when a connection was lost, or what was found cannot be kept.

    Raises:
        UserError: no bundle or a changed one, or a device that cannot be reached, lacks something or has too
            few cores.
    """
    where = f"on {settings.address.host}"
    with open_bundle(path) as bundle:
        bundle.check()
        manifest, evidence = bundle.manifest, bundle.evidence()
        identity = sha256(bundle.folder / MANIFEST_NAME)[:16]
        progress(0.0, f"copying to {settings.address}")
        if manifest.target.backend != "onnxruntime" or manifest.target.kind != "cpu":
            found = run_bundle(settings, bundle.folder, identity, bench=True)
            return judge(manifest, evidence, None, _parity(found.check), _told(manifest, found.bench, where))
        device = SshDevice(settings, manifest.target, say=say)
        machine = device.fingerprint()  # says what is missing there
        parity = _parity(run_bundle(settings, bundle.folder, identity, bench=False).check)
        try:
            measurement = device.measure_model(
                _files(bundle),
                manifest.network,
                secrets.token_hex(8),  # a device takes no results that an earlier verification left there
                seed=seed,
                time_limit_s=time_limit_s,
                progress=lambda share, text: progress(0.2 + 0.8 * share, text),
            )
        finally:
            device.finish()
        names = list(measurement.summaries)
        if manifest.stages is not None:
            names = [exit_name(number) for number in range(1, len(manifest.stages.exits) + 1)]
        measured = Measured.of(measurement, names)
        latencies = [
            LatencyEvidence(**one.latency, fingerprint=machine)
            for one in measured.exits or (measured.latency,)
        ]
        fresh = DeviceEvidence(
            device=settings.address.host,
            when=datetime.now(UTC).replace(microsecond=0),
            parity=parity,
            latency=LatencyEvidence(**measured.latency.latency, fingerprint=machine),
            stages=None
            if manifest.stages is None
            else stages_evidence(manifest.stages, latencies, manifest.target.batch),
        )
        try:
            add_evidence(bundle, fresh)
        except UserError as error:  # what was measured is told all the same
            say(f"the evidence was not kept: {error}")
    return judge(manifest, evidence, machine, parity, measured, where)


def _parity(found: CheckAnswer) -> Parity:
    return Parity(**found.model_dump(exclude={"ok"}))


def _told(manifest: Manifest, bench: BenchAnswer | None, where: str) -> str:
    """What is said of a latency that is not measured as tables are."""
    engine = f"{manifest.target.backend} on {manifest.target.kind}"
    text = f"not measured: over ssh only ONNX Runtime on the CPU is, this bundle is for {engine}"
    if bench is not None:
        text += f"; by its own --bench {bench.median_ms:.3f} ms (p95 {bench.p95_ms:.3f}) {where}"
    if any(budget.metric in LATENCIES for budget in manifest.budgets):
        text += "; no budget is held against that"
    return text


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
