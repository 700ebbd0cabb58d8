"""From a trained module to a bundle with its evidence: compile, compare with PyTorch, measure, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.compiled import STAND_IN, Batches, compile_onnx, engine_here
from nat2deploy.deploy.evidence import HERE, DeviceEvidence, LatencyEvidence
from nat2deploy.deploy.judging import MAX_ACCURACY_DROP, Labelled, first_classes, inputs_of, judge_engine
from nat2deploy.deploy.manifest import (
    BudgetSpec,
    CostSpec,
    Evidence,
    InputSpec,
    Manifest,
    OutputSpec,
    QuantisationSpec,
)
from nat2deploy.deploy.mixed_precision import quantise_within
from nat2deploy.deploy.parity import agrees, compare, describe, run_all
from nat2deploy.deploy.readme import readme
from nat2deploy.deploy.reference import REFERENCE_NAME, save_reference
from nat2deploy.deploy.runner_files import runner_files
from nat2deploy.deploy.writing import check_replaceable, write_bundle
from nat2deploy.engines.base import Engine
from nat2deploy.engines.calibration import Method
from nat2deploy.engines.onnx_export import INPUT, OUTPUT, to_onnx
from nat2deploy.engines.quantise import is_symmetric, quantise, target_onnx
from nat2deploy.engines.registry import compile_model
from nat2deploy.errors import UserError
from nat2deploy.measure.networks import measure_engines
from nat2deploy.target import Target, fingerprint
from nat2deploy.version import __version__

_CHANNELS = 3


@dataclass(frozen=True)
class EngineOptions:
    """How the engine is made.

    Attributes:
        sm: compute capabilities, such as 86 for 8.6, to compile ahead for, with TensorRT for RTX.
        batches: the smallest batch, the one to be fastest at (the target's), the largest; for TensorRT.
        method: of calibration, for int8.
        max_accuracy_drop: how far the top-1 of int8 may lie below PyTorch's in float, as a share; layers
            stay in float for it.
        qat_epochs: for how many epochs the module was tuned for 8 bits, for the manifest.
        save_optimised: add ONNX Runtime's graph as it is optimised for this machine.
    """

    sm: tuple[int, ...] = ()
    batches: Batches | None = None
    method: Method = "min-max"
    max_accuracy_drop: float = MAX_ACCURACY_DROP
    save_optimised: bool = False
    qat_epochs: float = 0.0


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
    test: Labelled | None = None,
    validation: Labelled | None = None,
    reference_images: Tensor,
    calibration_images: Tensor | None = None,
    options: EngineOptions = EngineOptions(),
    seed: int,
    time_limit_s: float | None = 5.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Manifest:
    """Compile ``module`` for ``target`` and write a bundle to ``out``.

    Where the target's GPU is not here, ONNX Runtime on the CPU stands in for it: parity and accuracy are
    those of the ONNX model, latency is not measured, and the manifest says so.

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
        test: the test split, on which the engine is judged beside PyTorch.
        validation: what the layers that int8 leaves in float are searched on; none is left without.
        reference_images: uint8 [N, C, H, W] to compare the engine with PyTorch on; they travel along.
        calibration_images: uint8 [N, C, H, W] of the training split, for int8.
        options: of the engine.
        seed: of the measurement.
        time_limit_s: for the measurement; None leaves it out, where the target is another machine.
        progress: told what is done in a search for layers.

    Returns:
        The manifest as written.

    Raises:
        UserError: ``out`` is something else than a bundle, the target's backend cannot be bundled, the
            labels do not fit, or the engine does not agree with PyTorch, see ``agrees`` and ``judge_engine``.
    """
    batches = options.batches or (target.batch, target.batch, target.batch)
    _check(target, labels, reference_images, batches, options)
    check_replaceable(out)
    shape = (target.batch, _CHANNELS, preprocessing.resolution, preprocessing.resolution)
    eager = compile_model(module, Target(backend="torch", threads=target.threads, batch=target.batch), shape)
    model, quantisation = _model(
        module, target, preprocessing, eager, calibration_images, validation, options, progress
    )
    inputs = inputs_of(preprocessing, reference_images)
    expected = run_all(eager, inputs)
    if expected.ndim != 2 or expected.shape[1] != len(labels):
        raise UserError(f"{len(labels)} labels for an output of {expected.shape[1:]}; give one a class")
    compiled = compile_onnx(model, target, sm=options.sm, batches=batches, optimised=options.save_optimised)
    parity = compare(run_all(compiled.engine, inputs), expected)
    if not agrees(parity, target.precision):
        hint = (
            "look for an operator that the engine computes otherwise"
            if target.precision == "fp32"
            else "8 bits are too few for this network; search and export in fp32"
            if target.precision == "int8"
            else "export in fp32"
        )
        raise UserError(f"the engine does not agree with PyTorch ({describe(parity)}); {hint}")
    accuracy = None
    if test is not None:
        accuracy = judge_engine(
            compiled.engine, eager, preprocessing, test, target.precision, options.max_accuracy_drop
        )
    manifest = Manifest(
        version=__version__,
        network=network_id,
        architecture=architecture,
        space=space,
        model=compiled.model,
        input=InputSpec(name=INPUT, shape=shape, preprocessing=preprocessing),
        output=OutputSpec(name=OUTPUT, labels=tuple(labels)),
        target=target,
        engine=compiled.spec,
        quantisation=quantisation,
        budgets=tuple(BudgetSpec(text=b.text, metric=b.metric, limit=b.limit) for b in budgets),
        costs=CostSpec(macs=costs.macs, params=costs.params, latency_ms=costs.latency_ms),
        evidence=Evidence(
            engine=target.backend if compiled.on_target else STAND_IN,
            device="verified" if compiled.on_target else "not verified on a device",
            parity=parity,
            accuracy=accuracy,
        ),
        files={},
    )

    def fill(folder: Path) -> None:
        compiled.write(folder)
        save_reference(folder / REFERENCE_NAME, reference_images.cpu(), expected)
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (folder / "README.txt").write_text(readme(manifest), encoding="utf-8")
        for name, content in runner_files().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    measured = []
    if time_limit_s is not None and compiled.on_target:
        latency = _measure(compiled.engine, network_id, seed, time_limit_s)
        now = datetime.now(UTC).replace(microsecond=0)
        measured.append(DeviceEvidence(device=HERE, when=now, parity=parity, latency=latency))
    return write_bundle(out, manifest, fill, measured)


def _model(
    module: nn.Module,
    target: Target,
    preprocessing: Preprocessing,
    eager: Engine,
    calibration_images: Tensor | None,
    validation: Labelled | None,
    options: EngineOptions,
    progress: Callable[[str], None],
) -> tuple[bytes, QuantisationSpec | None]:
    """The ONNX model in the target's number format, and how it became 8-bit."""
    free = options.batches is not None and len(set(options.batches)) > 1
    if target.precision != "int8" or calibration_images is None:
        return target_onnx(module, target, eager.input_shape, free_batch=free), None
    calibration = inputs_of(preprocessing, calibration_images)
    plain = to_onnx(module, eager.input_shape, dynamic_batch=free)
    symmetric, images = is_symmetric(target), len(calibration)
    if validation is None:
        model = quantise(plain, calibration, symmetric=symmetric, method=options.method)
        return model, QuantisationSpec(
            method=options.method, calibration_images=images, qat_epochs=options.qat_epochs
        )
    targets = validation.targets.cpu().numpy()
    float_top1 = float((first_classes(eager, preprocessing, validation.images) == targets).mean())
    found = quantise_within(
        plain,
        calibration,
        symmetric=symmetric,
        method=options.method,
        lowest_top1=float_top1 - options.max_accuracy_drop - 1e-9,
        validation=(inputs_of(preprocessing, validation.images), targets),
        run=lambda model, given: run_all(engine_here(model, target)[0], given),
        progress=progress,
    )
    return found.model, QuantisationSpec(
        method=options.method,
        calibration_images=images,
        qat_epochs=options.qat_epochs,
        float_layers=found.float_layers,
        max_accuracy_drop=options.max_accuracy_drop,
        float_top1=float_top1,
        top1=found.top1,
    )


def _check(
    target: Target, labels: Sequence[str], images: Tensor, batches: Batches, options: EngineOptions
) -> None:
    sm, save_optimised = options.sm, options.save_optimised
    if target.backend == "torch":
        raise UserError(
            f"a bundle does not run on {target}; export with --engine onnxruntime, openvino, tensorrt or "
            "tensorrt-rtx"
        )
    if sm and target.backend != "tensorrt-rtx":
        raise UserError(f"--sm: {target.backend} does not compile ahead; choose --engine tensorrt-rtx")
    if save_optimised and (target.backend != "onnxruntime" or target.kind != "cpu"):
        raise UserError(f"--save-optimised: it is for ONNX Runtime on the CPU, not for {target}")
    tensorrt = target.backend in ("tensorrt", "tensorrt-rtx")
    if len(set(batches)) > 1 and not tensorrt:
        raise UserError(f"--batch: a range is for TensorRT's engines; give one number for {target.backend}")
    if not 0 < batches[0] <= batches[1] <= batches[2] or batches[1] != target.batch:
        raise UserError(f"--batch: {':'.join(map(str, batches))} does not rise; write 8, 1:8 or 1:4:8")
    for label in labels:
        if not label.strip() or len(label.splitlines()) != 1:
            raise UserError(f"label {label!r} is empty or has a line break; rename the class")
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise UserError(
            f"reference images are {images.dtype} of {tuple(images.shape)}; give uint8 [N, C, H, W]"
        )


def _measure(engine: Engine, name: str, seed: int, time_limit_s: float) -> LatencyEvidence:
    summary = measure_engines({name: engine}, seed=seed, time_limit_s=time_limit_s).summaries[name]
    return LatencyEvidence(**summary.latency, fingerprint=fingerprint(engine.target.device))
