"""Is a bundle still what it was, and does it keep its promises on this machine?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.compiled import STAND_IN
from nat2deploy.deploy.evidence import HERE, DeviceEvidence, on_machine
from nat2deploy.deploy.exit_answers import compare_exits, run_exits
from nat2deploy.deploy.manifest import BudgetSpec, Manifest, Parity, StagesSpec
from nat2deploy.deploy.opening import open_bundle_engine
from nat2deploy.deploy.parity import agrees, compare, describe, run_all
from nat2deploy.deploy.reference import REFERENCE_NAME, load_reference
from nat2deploy.deploy.runner.expected import expected_cost
from nat2deploy.engines.base import Engine
from nat2deploy.engines.cores import available_cores
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.errors import UserError
from nat2deploy.intervals import wilson
from nat2deploy.measure.interleave import Measurement
from nat2deploy.measure.networks import measure_engines
from nat2deploy.measure.statistics import Summary
from nat2deploy.precision import Precision
from nat2deploy.target import Fingerprint, fingerprint


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found; ``anywhere``: every machine finds the same."""

    name: str
    ok: bool
    text: str
    anywhere: bool = False


_Z = 1.96  # standard errors to either side of a 95 % interval
_SLACK = 0.002  # of a size: a search counts it block by block


@dataclass(frozen=True)
class Verification:
    """What verifying a bundle found.

    Attributes:
        network: the network's id.
        max_difference: of the engine here from PyTorch's stored logits, as a share of the largest logit.
        top1_agreement: share of the stored images with the same class.
        latency: measured here; None where this machine lacks the target's GPU or engine, or cores for its
            threads. With early exits that of all stages, the worst case.
        exits: with early exits: measured here, of an image that leaves at each; else empty.
        expected_ms: with early exits: the expected latency, by the manifest's shares; else None.
        same_machine: whether the evidence was measured on a machine like this one.
        checks: files, parity, latency, then each budget.
        ok: whether all checks passed.
    """

    network: str
    max_difference: float
    top1_agreement: float
    latency: Summary | None
    exits: tuple[Summary, ...]
    expected_ms: float | None
    same_machine: bool
    checks: tuple[Check, ...]
    ok: bool = field(init=False)

    def __post_init__(self) -> None:
        """Derive ``ok``, a field so that it is part of the JSON."""
        object.__setattr__(self, "ok", all(check.ok for check in self.checks))

    @property
    def faults(self) -> tuple[Check, ...]:
        """Failed checks of the bundle itself: on another machine than its own latency says nothing of it."""
        count = self.same_machine
        return tuple(one for one in self.checks if not one.ok and (count or one.anywhere))


@dataclass(frozen=True)
class Measured:
    """A bundle's latency, whether it settled, and that up to each exit where there are several."""

    latency: Summary
    settled: bool
    exits: tuple[Summary, ...] = ()

    @classmethod
    def of(cls, found: Measurement, names: Sequence[str]) -> Measured:
        """From a measurement of what ``engines_of`` names."""
        summaries = tuple(found.summaries[name] for name in names)
        settled = all(found.converged[name] for name in names)
        return cls(summaries[-1], settled, summaries if len(names) > 1 else ())


def engines_of(name: str, engine: Engine) -> dict[str, Engine]:
    """What is measured of a bundle's engine: itself, or of stages what is run up to each exit, in order."""
    if not isinstance(engine, StagedEngine):
        return {name: engine}
    return {exit_name(number): engine.up_to(number) for number in range(1, engine.exits + 1)}


def exit_name(number: int) -> str:
    """What is measured for images that leave at an exit, counted from 1."""
    return f"exit {number}"


def expected_of(stages: StagesSpec, exits: Sequence[Summary], batch: int) -> float:
    """The expected latency in ms, of what was measured up to each exit."""
    return expected_cost(stages.shares, [one.median_ms for one in exits], batch)


LATENCIES = {"latency_ms": "median_ms", "latency_p95_ms": "p95_ms", "latency_p99_ms": "p99_ms"}
"""What budgets limit, by metric: the name of it in a ``Summary``."""


def latencies(latency: Summary) -> dict[str, float]:
    """What budgets limit in ms, by metric."""
    return {metric: getattr(latency, name) for metric, name in LATENCIES.items()}


def verify_bundle(path: Path, *, seed: int, time_limit_s: float = 5.0) -> Verification:
    """Check a bundle's files, its engine against PyTorch's stored logits, and its latency on this machine.

    Args:
        path: a folder or a zip.
        seed: of the measurement.
        time_limit_s: for the measurement.

    Raises:
        UserError: no bundle, or a file of it is missing, extra or changed.
    """
    with open_bundle(path) as bundle:
        bundle.check()
        manifest = bundle.manifest
        engine, absent = open_bundle_engine(bundle)
        exits = None if manifest.stages is None else len(manifest.stages.exits)
        images, expected = load_reference(bundle.folder / REFERENCE_NAME, exits)
        if expected.shape[-1] != len(manifest.output.labels):
            raise UserError(
                f"bundle {path}: {len(manifest.output.labels)} labels for {expected.shape[-1]} classes; "
                "export it again"
            )
        inputs = manifest.input.preprocessing.apply(images).numpy().astype(np.float32, copy=False)
        if isinstance(engine, StagedEngine):
            parity = compare_exits(run_exits(engine, inputs), expected)
        else:
            parity = compare(run_all(engine, inputs), expected)
        cores = available_cores()
        measured = None
        if not absent and manifest.target.threads <= cores:
            engines = engines_of(manifest.network, engine)
            found = measure_engines(engines, seed=seed, time_limit_s=time_limit_s)
            measured = Measured.of(found, list(engines))
        evidence = bundle.evidence()
    machine = fingerprint(engine.target.device)
    if measured is not None:
        return judge(manifest, evidence, machine, parity, measured)
    why = (
        f"not measured: the target has {manifest.target.threads} threads, this machine {cores} cores"
        if not absent
        else f"not verified on a device: {absent}; {STAND_IN}"
    )
    return judge(manifest, evidence, machine, parity, why)


def judge(
    manifest: Manifest,
    evidence: Sequence[DeviceEvidence],
    machine: Fingerprint | None,
    parity: Parity,
    measured: Measured | str,
    where: str = "here",
) -> Verification:
    """Judge what a machine showed of a bundle whose files were checked.

    Args:
        manifest: of the bundle.
        evidence: of the bundle, from before.
        machine: where parity and latency were measured; None where nobody asked it what it is.
        parity: of the engine there with PyTorch.
        measured: the latency; or why it was not measured.
        where: how to call the machine.
    """
    before = None if machine is None else on_machine(evidence, machine)
    same_machine = (
        before is not None and machine is not None and before.latency.fingerprint.same_machine(machine)
    )
    latency: Summary | None
    exits: tuple[Summary, ...] = ()
    expected_ms = None
    expected: list[Check] = []
    if isinstance(measured, str):
        latency, seen = None, measured
    else:
        latency = measured.latency
        seen = _latency(latency, measured.settled, before, same_machine, where)
        if manifest.stages is not None:
            exits = measured.exits
            each = exits or (latency,)
            expected_ms = expected_of(manifest.stages, each, manifest.target.batch)
            seen += "; all stages, the worst case"
            expected.append(_expected(manifest, each, expected_ms, before, same_machine))
    return Verification(
        network=manifest.network,
        max_difference=parity.max_difference,
        top1_agreement=parity.top1_agreement,
        latency=latency,
        exits=exits,
        expected_ms=expected_ms,
        same_machine=same_machine,
        checks=(
            Check("files", True, f"{len(manifest.files)} files as they were exported", anywhere=True),
            _parity(parity, manifest.target.precision),
            Check("latency", True, seen),
            *expected,
            *_budgets(manifest, latency, before, same_machine),
        ),
    )


def _parity(parity: Parity, precision: Precision) -> Check:
    return Check("parity", agrees(parity, precision), describe(parity), anywhere=True)


def _latency(
    latency: Summary, settled: bool, before: DeviceEvidence | None, same_machine: bool, where: str
) -> str:
    text = f"{latency.median_ms:.3f} ms ({latency.ci_low_ms:.3f}-{latency.ci_high_ms:.3f}) {where}"
    if not settled:
        text += ", not settled within the time limit"
    if before is not None:
        when = "at export" if before.device == HERE else f"on {before.when:%Y-%m-%d}"
        kind = "this machine" if same_machine else "another machine"
        text += f"; {before.latency.median_ms:.3f} ms {when} on {kind}"
    return text


def _expected(
    manifest: Manifest,
    exits: Sequence[Summary],
    expected_ms: float,
    before: DeviceEvidence | None,
    same_machine: bool,
) -> Check:
    """The expected latency, against the limit that thresholds were fitted for.

    It is missed where the whole 95 % interval lies above, of the latencies and of who leaves where.
    """
    stages, batch = manifest.stages, manifest.target.batch
    assert stages is not None
    low_ms = expected_cost(stages.shares, [one.ci_low_ms for one in exits], batch)
    off_ms = _Z * expected_error(stages, [one.median_ms for one in exits], batch)
    text = f"{expected_ms:.3f} ms ± {expected_ms - low_ms + off_ms:.3f}"
    if stages.expected_ms is not None:
        text += f" of {stages.expected_ms:g} ms"
    text += f", {', '.join(f'{share:.1%}' for share in stages.shares)} of images leaving at each exit"
    if before is not None and before.stages is not None:
        kind = "this machine" if same_machine else "another machine"
        text += f"; {before.stages.expected_ms:.3f} ms before on {kind}"
    return Check("expected", stages.expected_ms is None or low_ms - off_ms <= stages.expected_ms, text)


def expected_error(stages: StagesSpec, costs_ms: Sequence[float], batch: int) -> float:
    """The standard error in ms of an expected latency, by the images that shares were counted on."""
    judged = stages.test or stages.validation
    shares, costs = np.asarray(judged.shares), np.asarray(costs_ms)
    mean = float(shares @ costs)
    variance = float(shares @ np.square(costs - mean))
    return float(np.sqrt(variance * batch / max(judged.images, 1)))


def _budgets(
    manifest: Manifest, latency: Summary | None, before: DeviceEvidence | None, same_machine: bool
) -> list[Check]:
    """Check each budget: on latency against what was measured here, on all else against the manifest."""
    measured = {} if latency is None else latencies(latency)
    note = "" if manifest.stages is None else ", all stages"
    if before is None:
        note += " (no latency was measured at export)"
    elif not same_machine:
        note += " (not the machine it was exported on)"
    found = []
    for budget in manifest.budgets:
        if budget.metric in measured:
            value = measured[budget.metric]
            text = f"{value:.3f} ms of {budget.limit:g} ms{note}"
            found.append(Check(budget.text, value <= budget.limit, text))
        elif not budget.metric.startswith("latency"):
            found.append(_of_manifest(manifest, budget))
    return found


def _of_manifest(manifest: Manifest, budget: BudgetSpec) -> Check:
    """A budget on what a bundle says of itself; on accuracy where the 95 % interval does not reach it."""
    accuracy, costs = manifest.evidence.accuracy, manifest.costs
    if budget.metric == "top1" and accuracy is not None:
        _, high = wilson(accuracy.top1, accuracy.images)
        text = f"{accuracy.top1:.2%} on {accuracy.images} test images, of {budget.limit:.2%}"
        return Check(budget.text, high >= budget.limit, text, anywhere=True)
    values = {"macs": costs.macs, "params": costs.params, "size_mb": costs.size_mb}
    value = values.get(budget.metric)
    if value is None:
        return Check(budget.text, True, "not looked at: a bundle does not tell it", anywhere=True)
    if budget.metric == "size_mb":
        kept, text = value <= budget.limit * (1 + _SLACK), f"{value:.4g} MB of {budget.limit:g} MB"
    else:
        kept, text = value <= budget.limit, f"{value:,} of {budget.limit:,.0f}"
    return Check(budget.text, kept, text, anywhere=True)
