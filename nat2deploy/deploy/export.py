"""From a trained module to a bundle with its evidence: compile, compare with PyTorch, measure, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.compiled import STAND_IN, Batches, compile_onnx, engine_here
from nat2deploy.deploy.costs import CostsLike, weights_mb
from nat2deploy.deploy.evidence import HERE, DeviceEvidence
from nat2deploy.deploy.judging import Labelled, Promise, check_promise, inputs_of, judge_engine
from nat2deploy.deploy.made import Made, check_parity, measure
from nat2deploy.deploy.making import EngineOptions, Making
from nat2deploy.deploy.manifest import (
    BudgetSpec,
    CostSpec,
    Evidence,
    InputSpec,
    Manifest,
    OutputSpec,
    QuantisationSpec,
)
from nat2deploy.deploy.parity import compare, run_all
from nat2deploy.deploy.quantisable import Whole
from nat2deploy.deploy.quantised import quantise_network
from nat2deploy.deploy.readme import readme
from nat2deploy.deploy.reference import REFERENCE_NAME, save_reference
from nat2deploy.deploy.runner_files import runner_files
from nat2deploy.deploy.stages import make_stages
from nat2deploy.deploy.stages_plan import StagesPlan
from nat2deploy.deploy.writing import check_replaceable, write_bundle
from nat2deploy.engines.onnx_export import INPUT, OUTPUT, to_onnx
from nat2deploy.engines.quantise import is_symmetric, target_onnx
from nat2deploy.engines.registry import check_here, compile_model
from nat2deploy.errors import UserError
from nat2deploy.target import Target
from nat2deploy.version import __version__

_CHANNELS = 3


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
    origin: str | None = None,
    target_name: str | None = None,
    untuned: nn.Module | None = None,
    architecture: dict[str, Any],
    space: str,
    budgets: Sequence[BudgetLike] = (),
    costs: CostsLike,
    test: Labelled | None = None,
    validation: Labelled | None = None,
    promise: Promise | None = None,
    reference_images: Tensor,
    calibration_images: Tensor | None = None,
    options: EngineOptions = EngineOptions(),
    stages: StagesPlan | None = None,
    seed: int,
    time_limit_s: float | None = 5.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Manifest:
    """Compile ``module`` for ``target`` and write a bundle to ``out``.

    Where the target's GPU or its engine's package is not here, ONNX Runtime on the CPU stands in for it:
    parity and accuracy are those of the ONNX model, latency is not measured, and the manifest says so.

    Args:
        module: takes float32 [B, 3, r, r] and returns logits [B, classes]; left as it was.
        out: a folder, or a zip where the name ends in ``.zip``; a bundle that is there is replaced.
        target: what the engine is compiled for and measured as.
        preprocessing: from an image to the input; its resolution is r.
        labels: one a class, without line breaks.
        network_id: the architecture's id.
        origin: the id of the front's network that it was made of, where that is another one.
        target_name: what the search called the target, where it had names for several.
        untuned: the network before it was tuned for 8 bits, whose accuracy counts as that in float.
        architecture: the architecture as JSON.
        space: the name of its search space.
        budgets: the limits that it was searched under.
        costs: of the network.
        test: the test split, on which the engine is judged beside PyTorch.
        validation: what the layers that int8 leaves in float for accuracy are searched on; without, none.
        promise: the accuracy in 8 bits that the network was chosen for.
        reference_images: uint8 [N, C, H, W] to compare the engine with PyTorch on; they travel along.
        calibration_images: uint8 [N, C, H, W] of the training split, for int8.
        options: of the engine.
        stages: what the network is made of where it stops early; ``validation`` is then needed.
        seed: of the measurement.
        time_limit_s: for the measurement; None leaves it out, where the target is another machine.
        progress: told what is done in a search for layers.

    Returns:
        The manifest as written.

    Raises:
        UserError: ``out`` is something else than a bundle, the target's backend cannot be bundled, the
            labels do not fit, only faster layers shall get 8 bits where nothing is measured, or the engine
            does not agree with PyTorch, see ``agrees`` and ``judge_engine``.
    """
    batches = check_options(target, options)
    _check(labels, reference_images)
    if options.int8_layers == "faster":
        _check_measured(target, time_limit_s is not None)
    check_replaceable(out)
    shape = (target.batch, _CHANNELS, preprocessing.resolution, preprocessing.resolution)
    in_torch = Target(backend="torch", threads=target.threads, batch=target.batch)
    eager = compile_model(module, in_torch, shape)
    making = Making(
        target=target,
        preprocessing=preprocessing,
        batches=batches,
        options=options,
        eager=eager,
        untuned=eager if untuned is None else compile_model(untuned, in_torch, shape),
        reference_images=reference_images,
        calibration_images=calibration_images,
        validation=validation,
        test=test,
        promise=promise,
        seed=seed,
        time_limit_s=time_limit_s,
        progress=progress,
    )
    made = _make(module, making) if stages is None else make_stages(stages, making)
    classes = made.expected["logits"].shape[1:]
    if classes != (len(labels),):
        raise UserError(f"{len(labels)} labels for an output of {classes}; give one a class")
    manifest = Manifest(
        version=__version__,
        network=network_id,
        origin=origin,
        target_name=target_name,
        architecture=architecture,
        space=space,
        model=made.model,
        input=InputSpec(name=INPUT, shape=shape, preprocessing=preprocessing),
        output=OutputSpec(name=OUTPUT, labels=tuple(labels)),
        target=target,
        engine=made.spec,
        quantisation=made.quantisation,
        stages=made.stages,
        budgets=tuple(BudgetSpec(text=b.text, metric=b.metric, limit=b.limit) for b in budgets),
        costs=CostSpec(
            macs=costs.macs, params=costs.params, latency_ms=costs.latency_ms, size_mb=made.size_mb
        ),
        evidence=Evidence(
            engine=target.backend if made.on_target else STAND_IN,
            device="verified" if made.on_target else "not verified on a device",
            parity=made.parity,
            accuracy=made.accuracy,
        ),
        files={},
    )

    def fill(folder: Path) -> None:
        made.write(folder)
        save_reference(folder / REFERENCE_NAME, reference_images.cpu(), made.expected)
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (folder / "README.txt").write_text(readme(manifest), encoding="utf-8")
        for name, content in runner_files().items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    measured = []
    if made.latency is not None:
        now = datetime.now(UTC).replace(microsecond=0)
        found = DeviceEvidence(
            device=HERE, when=now, parity=made.parity, latency=made.latency, stages=made.exits
        )
        measured.append(found)
    return write_bundle(out, manifest, fill, measured)


def _make(module: nn.Module, given: Making) -> Made:
    """Compile the network as one file, compare it with PyTorch, and measure it where the target is here."""
    target, options, preprocessing = given.target, given.options, given.preprocessing
    model, quantisation = _model(module, given)
    inputs = inputs_of(preprocessing, given.reference_images)
    expected = run_all(given.eager, inputs)
    compiled = compile_onnx(
        model, target, sm=options.sm, batches=given.batches, optimised=options.save_optimised
    )
    parity = compare(run_all(compiled.engine, inputs), expected)
    check_parity(parity, target.precision)
    if given.promise is not None:
        check_promise(compiled.engine, preprocessing, given.promise)
    accuracy = None
    if given.test is not None:
        accuracy = judge_engine(
            compiled.engine,
            given.untuned,
            preprocessing,
            given.test,
            target.precision,
            options.max_accuracy_drop,
        )
    latency = None
    if given.time_limit_s is not None and compiled.on_target:
        (latency,) = measure({"network": compiled.engine}, given.seed, given.time_limit_s)
    return Made(
        on_target=compiled.on_target,
        model=compiled.model,
        spec=compiled.spec,
        quantisation=quantisation,
        parity=parity,
        size_mb=weights_mb([model], target.precision),
        accuracy=accuracy,
        expected={"logits": expected},
        write=compiled.write,
        latency=latency,
    )


def _model(module: nn.Module, given: Making) -> tuple[bytes, QuantisationSpec | None]:
    """The ONNX model in the target's number format, and how it became 8-bit."""
    target, options, shape = given.target, given.options, given.eager.input_shape
    free = len(set(given.batches)) > 1
    if target.precision != "int8" or given.calibration_images is None:
        return target_onnx(module, target, shape, free_batch=free), None
    calibration = inputs_of(given.preprocessing, given.calibration_images)
    plain = to_onnx(module, shape, dynamic_batch=free)
    return quantise_network(
        Whole(plain, calibration, symmetric=is_symmetric(target), method=options.method),
        plain,
        given,
        lambda model: engine_here(model, target)[0],
    )


def _check_measured(target: Target, measured: bool) -> None:
    if target.precision != "int8" or target.kind != "cpu" or not measured:
        raise UserError(
            f"--int8-layers faster: {target} is not measured here in int8 on the CPU; leave it out"
        )


def check_options(target: Target, options: EngineOptions) -> Batches:
    """Check that an engine for ``target`` can be made as asked; returns its smallest, best and largest batch.

    Raises:
        UserError: the target's backend cannot be bundled, or not here, or an option is for another one.
    """
    sm, save_optimised = options.sm, options.save_optimised
    batches = options.batches or (target.batch, target.batch, target.batch)
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
    try:
        check_here(target, sm)
    except UserError as error:
        if not sm:
            raise
        told = str(error).removeprefix("sm: ")
        raise UserError(f"--sm: {told}; without it the bundle's engine is built where its GPU is") from error
    return batches


def _check(labels: Sequence[str], images: Tensor) -> None:
    for label in labels:
        if not label.strip() or len(label.splitlines()) != 1:
            raise UserError(f"label {label!r} is empty or has a line break; rename the class")
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise UserError(
            f"reference images are {images.dtype} of {tuple(images.shape)}; give uint8 [N, C, H, W]"
        )
