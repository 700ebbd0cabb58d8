"""From a trained module to a bundle with its evidence: compile, compare with PyTorch, measure, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.manifest import (
    AccuracyEvidence,
    BudgetSpec,
    CostSpec,
    Evidence,
    InputSpec,
    LatencyEvidence,
    Manifest,
    OutputSpec,
)
from nat2deploy.deploy.parity import Floats, agrees, compare, describe, run_all
from nat2deploy.deploy.readme import readme
from nat2deploy.deploy.reference import REFERENCE_NAME, save_reference
from nat2deploy.deploy.runner_files import runner_files
from nat2deploy.deploy.writing import check_replaceable, write_bundle
from nat2deploy.engines.base import Engine
from nat2deploy.engines.onnx_export import INPUT, OUTPUT
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.measure.networks import measure_engines
from nat2deploy.target import Target, fingerprint
from nat2deploy.version import __version__

MODEL_NAME = "model.onnx"
_CHANNELS = 3


class CostsLike(Protocol):
    """Exact costs, and the predicted latency where there is a table."""

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations."""

    @property
    def params(self) -> int:
        """Number of weights."""

    @property
    def latency_ms(self) -> float | None:
        """Predicted latency, or None."""


class BudgetLike(Protocol):
    """A limit on a metric, in the metric's unit."""

    @property
    def text(self) -> str:
        """As the user wrote it."""

    @property
    def metric(self) -> str:
        """Such as ``latency_ms``."""

    @property
    def limit(self) -> float:
        """In the metric's unit."""


def export_bundle(
    module: nn.Module,
    *,
    out: Path,
    target: Target,
    preprocessing: Preprocessing,
    labels: Sequence[str],
    network_id: str,
    architecture: dict[str, Any],
    space: str,
    budgets: Sequence[BudgetLike] = (),
    costs: CostsLike,
    accuracy: tuple[str, float, int] | None = None,
    reference_images: Tensor,
    calibration_images: Tensor | None = None,
    seed: int,
    time_limit_s: float | None = 5.0,
) -> Manifest:
    """Compile ``module`` for ``target`` and write a bundle to ``out``.

    Args:
        module: takes float32 [B, 3, r, r] and returns logits [B, classes]; left as it was.
        out: a folder, or a zip where the name ends in ``.zip``; a bundle that is there is replaced.
        target: what the engine is compiled for and measured as.
        preprocessing: from an image to the input; its resolution is r.
        labels: one a class, without line breaks.
        network_id: the architecture's id.
        architecture: the architecture as JSON.
        space: the name of its search space.
        budgets: the limits that it was searched under.
        costs: of the network.
        accuracy: data set, top-1 share and number of images of the test split.
        reference_images: uint8 [N, C, H, W] to compare the engine with PyTorch on; they travel along.
        calibration_images: uint8 [N, C, H, W] of the training split, for int8.
        seed: of the measurement.
        time_limit_s: for the measurement; None leaves it out, where the target is another machine.

    Returns:
        The manifest as written.

    Raises:
        UserError: ``out`` is something else than a bundle, the target's backend cannot be bundled, the
            labels do not fit, or the engine does not agree with PyTorch.
    """
    _check(target, labels, reference_images)
    check_replaceable(out)
    shape = (target.batch, _CHANNELS, preprocessing.resolution, preprocessing.resolution)
    engine = compile_engine(module, target, preprocessing, calibration_images)
    inputs = _inputs(preprocessing, reference_images)
    eager = target.model_copy(update={"backend": "torch", "precision": "fp32"})
    expected = run_all(compile_model(module, eager, shape), inputs)
    if expected.ndim != 2 or expected.shape[1] != len(labels):
        raise UserError(f"{len(labels)} labels for an output of {expected.shape[1:]}; give one a class")
    parity = compare(run_all(engine, inputs), expected)
    if not agrees(parity, target.precision):
        hint = (
            "look for an operator that ONNX Runtime computes otherwise"
            if target.precision == "fp32"
            else "8 bits are too few for this network; search and export in fp32"
        )
        raise UserError(f"the engine does not agree with PyTorch ({describe(parity)}); {hint}")
    manifest = Manifest(
        version=__version__,
        network=network_id,
        architecture=architecture,
        space=space,
        model=MODEL_NAME,
        input=InputSpec(name=INPUT, shape=shape, preprocessing=preprocessing),
        output=OutputSpec(name=OUTPUT, labels=tuple(labels)),
        target=target,
        budgets=tuple(BudgetSpec(text=b.text, metric=b.metric, limit=b.limit) for b in budgets),
        costs=CostSpec(macs=costs.macs, params=costs.params, latency_ms=costs.latency_ms),
        evidence=Evidence(
            parity=parity,
            accuracy=None
            if accuracy is None
            else AccuracyEvidence(dataset=accuracy[0], top1=accuracy[1], images=accuracy[2]),
            latency=None if time_limit_s is None else _measure(engine, network_id, seed, time_limit_s),
        ),
        files={},
    )

    def fill(folder: Path) -> None:
        engine.save(folder / MODEL_NAME)
        save_reference(folder / REFERENCE_NAME, reference_images.cpu(), expected)
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (folder / "README.txt").write_text(readme(manifest), encoding="utf-8")
        for name, content in runner_files().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    return write_bundle(out, manifest, fill)


def compile_engine(
    module: nn.Module, target: Target, preprocessing: Preprocessing, calibration_images: Tensor | None
) -> Engine:
    """Compile ``module`` as ``export_bundle`` does; ``calibration_images`` are uint8 [N, C, H, W], for int8.

    Raises:
        UserError: the module does not export, or int8 without calibration images.
    """
    shape = (target.batch, _CHANNELS, preprocessing.resolution, preprocessing.resolution)
    calibration = None if calibration_images is None else _inputs(preprocessing, calibration_images)
    return compile_model(module, target, shape, calibration=calibration)


def _inputs(preprocessing: Preprocessing, images: Tensor) -> Floats:
    """uint8 [N, C, H, W] to network input."""
    return np.ascontiguousarray(preprocessing.apply(images.cpu()).numpy(), dtype=np.float32)


def _check(target: Target, labels: Sequence[str], images: Tensor) -> None:
    if target.backend != "onnxruntime" or target.kind != "cpu":
        raise UserError(
            f"a bundle runs on the CPU's ONNX Runtime, not on {target}; export with --engine onnxruntime"
        )
    for label in labels:
        if not label.strip() or len(label.splitlines()) != 1:
            raise UserError(f"label {label!r} is empty or has a line break; rename the class")
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise UserError(
            f"reference images are {images.dtype} of {tuple(images.shape)}; give uint8 [N, C, H, W]"
        )


def _measure(engine: Engine, name: str, seed: int, time_limit_s: float) -> LatencyEvidence:
    summary = measure_engines({name: engine}, seed=seed, time_limit_s=time_limit_s).summaries[name]
    return LatencyEvidence(**summary.latency, fingerprint=fingerprint())
