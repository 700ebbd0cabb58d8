"""What making a network for its target gives: files, and what was found about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nat2deploy.deploy.evidence import LatencyEvidence, StagesEvidence, Timing
from nat2deploy.deploy.manifest import AccuracyEvidence, EngineSpec, Parity, QuantisationSpec, StagesSpec
from nat2deploy.deploy.parity import Floats, agrees, describe
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UnfitNetworkError
from nat2deploy.measure.networks import measure_engines
from nat2deploy.precision import Precision
from nat2deploy.target import fingerprint


@dataclass(frozen=True)
class Made:
    """A network for its target, as one file or as stages.

    Attributes:
        on_target: whether it was run by the target's own engine, not by a stand-in.
        model: the name of the file that the bundle's runner starts from.
        spec: the engine's, for the manifest.
        quantisation: how it became 8-bit.
        parity: of the engine with PyTorch.
        size_mb: the weights' size, in 10⁶ bytes.
        accuracy: on the test split, where there is one.
        expected: PyTorch's logits of the reference images, float32 by name: ``logits`` [N, classes], and of
            stages ``exits`` [exits, N, classes].
        write: writes the engine's files into a folder.
        stages: how it stops early.
        latency: measured here; of stages the worst case.
        exits: of stages: measured here, of an image that leaves at each exit.
    """

    on_target: bool
    model: str
    spec: EngineSpec
    quantisation: QuantisationSpec | None
    parity: Parity
    size_mb: float
    accuracy: AccuracyEvidence | None
    expected: Mapping[str, Floats]
    write: Callable[[Path], None]
    stages: StagesSpec | None = None
    latency: LatencyEvidence | None = None
    exits: StagesEvidence | None = field(default=None)


def check_parity(parity: Parity, precision: Precision) -> None:
    """Check that the engine says what PyTorch says.

    Raises:
        UnfitNetworkError: it does not, see ``agrees``.
    """
    if agrees(parity, precision):
        return
    hint = (
        "look for an operator that the engine computes otherwise"
        if precision == "fp32"
        else "8 bits are too few for this network; search and export in fp32"
        if precision == "int8"
        else "export in fp32"
    )
    raise UnfitNetworkError(f"the engine does not agree with PyTorch ({describe(parity)}); {hint}")


def measure(engines: Mapping[str, Engine], seed: int, time_limit_s: float) -> list[LatencyEvidence]:
    """Measure engines on this machine, interleaved; returns their latencies in order."""
    found = measure_engines(engines, seed=seed, time_limit_s=time_limit_s).summaries
    machine = fingerprint(next(iter(engines.values())).target.device)
    return [LatencyEvidence(**found[name].latency, fingerprint=machine) for name in engines]


def timing(latency: LatencyEvidence) -> Timing:
    """The same without the machine."""
    return Timing(**latency.model_dump(exclude={"fingerprint"}))
