"""A network with early exits as stages: one ONNX file each, and thresholds at which images leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nat2deploy.deploy.costs import CostsLike
from nat2deploy.deploy.evidence import LatencyEvidence, StagesEvidence
from nat2deploy.deploy.exit_answers import answers_of, compare_exits, decided, run_exits
from nat2deploy.deploy.exit_thresholds import (
    Fitted,
    Goal,
    Point,
    fit_thresholds,
)
from nat2deploy.deploy.judging import MAX_ACCURACY_DROP, Labelled, first_classes, inputs_of, judge_classes
from nat2deploy.deploy.made import Made, check_parity, measure, timing
from nat2deploy.deploy.making import Making
from nat2deploy.deploy.manifest import (
    AccuracyEvidence,
    CostSpec,
    EngineSpec,
    QuantisationSpec,
    StagedAccuracy,
    StageSpec,
    StagesSpec,
    SweepPoint,
)
from nat2deploy.deploy.parity import Floats, run_all
from nat2deploy.deploy.quantisable import Stages
from nat2deploy.deploy.quantised import quantise_network
from nat2deploy.deploy.runner.expected import expected_cost
from nat2deploy.deploy.runner.stages import FEATURES
from nat2deploy.engines.onnx_export import OUTPUT, to_onnx
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.engines.status import version
from nat2deploy.errors import UserError


@dataclass(frozen=True)
class StagesPlan:
    """What a network with early exits is made of, and what its thresholds are for.

    Without a target, early exits may cost half a point of the ensemble's top-1.

    Attributes:
        modules: one a stage: takes the input, or the features of the one before; returns the logits
            [B, classes] of its exit times its weight and, but for the last, features.
        weights: of each exit in the ensemble, adding up to 1.
        costs: of all stages up to each.
        expected_latency_ms: the expected latency to keep.
        top1: the least top-1 to keep, a share.
        accuracy_drop: how far top-1 may lie below the ensemble's, a share.
        confidence: the measure; chosen on validation when not given.
    """

    modules: Sequence[nn.Module]
    weights: Sequence[float]
    costs: Sequence[CostsLike]
    expected_latency_ms: float | None = None
    top1: float | None = None
    accuracy_drop: float | None = None
    confidence: str | None = None


def make_stages(plan: StagesPlan, given: Making) -> Made:
    """Export the stages, fit their thresholds on the validation split, and judge them once on the test split.

    For int8 each stage is quantised by itself. Its activations are calibrated on what all of the calibration
    images give it, as none has left yet; layers that must stay in float are searched with all stages run.

    An expected latency is held against what is measured here, or against predictions where the table is of
    another machine. For an accuracy what the table predicts is made small, or MACs without one.

    Raises:
        UserError: a target out of reach on the validation split, a latency that is neither measured nor
            predicted, or an engine that does not agree with PyTorch.
    """
    validation = _check(plan, given)
    models = _models(plan.modules, given.eager.input_shape)
    quantisation = None
    if given.target.precision == "int8" and given.calibration_images is not None:
        models, quantisation = _quantised(plan, models, given, given.calibration_images)
    engine = StagedEngine(models, plan.weights, given.target)
    expected = _expected(plan, given)
    parity = compare_exits(
        run_exits(engine, inputs_of(given.preprocessing, given.reference_images)), expected
    )
    check_parity(parity, given.target.precision)
    latencies = None
    if plan.expected_latency_ms is not None and given.time_limit_s is not None:
        given.progress("latency of each exit")
        latencies = _latencies(engine.measuring(plan.confidence or "max-softmax"), given)
    given.progress("thresholds on the validation split")
    fitted, best, judged, by = _fit(plan, given, engine, validation, latencies)
    test, accuracy = None, None
    if given.test is not None:
        test, accuracy = _judged(given, engine, fitted.confidence, best.thresholds, given.test)
    if latencies is None and given.time_limit_s is not None:
        latencies = _latencies(engine.measuring(fitted.confidence), given)
    names = [f"stage{number}.onnx" for number in range(1, len(models) + 1)]
    spec = StagesSpec(
        confidence=fitted.confidence,  # type: ignore[arg-type]  # one of its own words
        target=_said(plan),
        expected_ms=plan.expected_latency_ms,
        by=by,  # type: ignore[arg-type]
        exits=tuple(
            StageSpec(
                file=name,
                weight=weight,
                threshold=threshold,
                costs=CostSpec(macs=costs.macs, params=costs.params, latency_ms=costs.latency_ms),
            )
            for name, weight, threshold, costs in zip(
                names, plan.weights, (*best.thresholds, None), plan.costs, strict=True
            )
        ),
        validation=judged,
        test=test,
        sweep=tuple(
            SweepPoint(thresholds=point.thresholds, top1=point.top1, shares=point.shares)
            for point in fitted.sweep
        ),
    )

    def write(folder: Path) -> None:
        for name, model in zip(names, models, strict=True):
            (folder / name).write_bytes(model)

    return Made(
        on_target=True,
        model=names[0],
        spec=EngineSpec(version=version("onnxruntime"), batches=given.batches),
        quantisation=quantisation,
        parity=parity,
        accuracy=accuracy,
        expected={"logits": expected[-1], "exits": expected},
        write=write,
        stages=spec,
        latency=None if latencies is None else latencies[-1],
        exits=None if latencies is None else stages_evidence(spec, latencies, given.target.batch),
    )


def stages_evidence(spec: StagesSpec, latencies: Sequence[LatencyEvidence], batch: int) -> StagesEvidence:
    """What was measured of each exit, with the expected latency."""
    return StagesEvidence(
        exits=tuple(timing(one) for one in latencies),
        expected_ms=expected_cost(spec.shares, [one.median_ms for one in latencies], batch),
    )


def _check(plan: StagesPlan, given: Making) -> Labelled:
    """Check what is asked for; returns the validation split."""
    target = given.target
    if target.backend != "onnxruntime" or target.kind != "cpu":
        raise UserError(f"--stages: stages run in ONNX Runtime on the CPU, not on {target}; leave it out")
    asked = (plan.expected_latency_ms, plan.top1, plan.accuracy_drop)
    if sum(one is not None for one in asked) > 1:
        raise UserError(
            "--expected-latency, --stage-accuracy and --stage-accuracy-drop exclude each other; give one"
        )
    unknown = given.time_limit_s is None and any(one.latency_ms is None for one in plan.costs)
    if plan.expected_latency_ms is not None and unknown:
        raise UserError(
            "--expected-latency: it is neither measured here, on another machine than the table's, nor "
            "predicted for these exits; give --stage-accuracy-drop instead"
        )
    if given.validation is None or len(given.validation.images) == 0:
        raise UserError("--stages: there are no validation images to fit thresholds on")
    return given.validation


def _said(plan: StagesPlan) -> str:
    """The target in words."""
    if plan.expected_latency_ms is not None:
        return f"expected latency <= {plan.expected_latency_ms:g} ms"
    if plan.top1 is not None:
        return f"top-1 >= {100 * plan.top1:g} %"
    return f"top-1 >= the ensemble's - {100 * _drop(plan):g} points"


def _drop(plan: StagesPlan) -> float:
    return MAX_ACCURACY_DROP if plan.accuracy_drop is None else plan.accuracy_drop


def _models(modules: Sequence[nn.Module], shape: tuple[int, ...]) -> tuple[bytes, ...]:
    models = []
    for module in modules:
        last = module is modules[-1]
        models.append(to_onnx(module, shape, outputs=(OUTPUT,) if last else (OUTPUT, FEATURES)))
        if not last:
            with torch.no_grad():
                shape = tuple(module(torch.zeros(shape))[1].shape)
    return tuple(models)


def _chain(modules: Sequence[nn.Module], images: Floats) -> tuple[list[Floats], list[Floats]]:
    """PyTorch's weighted logits of each exit, and the input of each stage."""
    logits, inputs = [], []
    x = torch.from_numpy(images)
    with torch.inference_mode():
        for module in modules:
            inputs.append(x.numpy())
            found = module(x)
            own, x = found if isinstance(found, tuple) else (found, x)
            logits.append(own.numpy())
    return logits, inputs


def _expected(plan: StagesPlan, given: Making) -> Floats:
    """What PyTorch says each exit answers, [exits, N, classes]; the last one by the network as a whole."""
    images = inputs_of(given.preprocessing, given.reference_images)
    logits, _ = _chain(plan.modules, images)
    totals = np.cumsum(plan.weights)
    answers = [
        total / weight if weight > 0 else np.zeros_like(total)
        for total, weight in zip(np.cumsum(logits, axis=0), totals, strict=True)
    ]
    return np.stack([*answers[:-1], run_all(given.eager, images)]).astype(np.float32)


def _quantised(
    plan: StagesPlan, models: tuple[bytes, ...], given: Making, calibration_images: Tensor
) -> tuple[tuple[bytes, ...], QuantisationSpec]:
    _, inputs = _chain(plan.modules, inputs_of(given.preprocessing, calibration_images))
    return quantise_network(
        Stages(models, inputs, method=given.options.method),
        models,
        given,
        lambda some, shown: run_exits(StagedEngine(some, plan.weights, given.target), shown)[-1],
    )


def _latencies(engine: StagedEngine, given: Making) -> list[LatencyEvidence]:
    assert given.time_limit_s is not None
    engines = {f"exit {number}": engine.up_to(number) for number in range(1, engine.exits + 1)}
    return measure(engines, given.seed, given.time_limit_s)


def _fit(
    plan: StagesPlan,
    given: Making,
    engine: StagedEngine,
    validation: Labelled,
    latencies: Sequence[LatencyEvidence] | None,
) -> tuple[Fitted, Point, StagedAccuracy, str]:
    """Fit the thresholds; also what they do on the validation split, and which costs were made small."""
    answers = answers_of(engine, given.preprocessing, validation.images)
    targets = validation.targets.cpu().numpy()
    whole = float((answers[-1].argmax(axis=1) == targets).mean())
    target = Goal(lowest_top1=whole - _drop(plan) if plan.top1 is None else plan.top1)
    if plan.expected_latency_ms is not None:
        target = Goal(highest_cost=plan.expected_latency_ms)
    by, costs = _costs(plan, latencies)
    # An exit can only cost more than the one before; measurements of near ones may say otherwise.
    costs = list(np.maximum.accumulate(costs))
    fitted = fit_thresholds(
        answers, targets, costs, target, confidence=plan.confidence, batch=given.target.batch
    )
    if fitted.best is None:
        raise UserError(_out_of_reach(plan, len(targets), fitted.nearest, whole))
    judged = StagedAccuracy(
        images=len(targets), top1=fitted.best.top1, ensemble_top1=whole, shares=fitted.best.shares
    )
    return fitted, fitted.best, judged, by


def _costs(plan: StagesPlan, latencies: Sequence[LatencyEvidence] | None) -> tuple[str, list[float]]:
    """What each exit costs: measured where a latency is the target, so that it holds; else reproducibly."""
    if latencies is not None:
        return "measured latency", [one.median_ms for one in latencies]
    predicted = [one.latency_ms for one in plan.costs if one.latency_ms is not None]
    if len(predicted) == len(plan.costs):
        return "predicted latency", predicted
    return "macs", [float(one.macs) for one in plan.costs]


def _out_of_reach(plan: StagesPlan, images: int, nearest: Point, whole: float) -> str:
    if plan.expected_latency_ms is not None:
        return (
            f"--expected-latency {plan.expected_latency_ms:g}ms: the first exit alone takes "
            f"{nearest.cost:.3g} ms; give more, or export a faster network"
        )
    return (
        f"--stage-accuracy {100 * (plan.top1 or 0):g}%: no thresholds reach it on the "
        f"{images} validation images, the nearest {nearest.top1:.2%} (all stages "
        f"{whole:.2%}); ask for less, or export a better network"
    )


def _judged(
    given: Making,
    engine: StagedEngine,
    confidence: str,
    thresholds: Sequence[float | None],
    split: Labelled,
) -> tuple[StagedAccuracy, AccuracyEvidence]:
    """Judge on the test split: all stages beside PyTorch, then who leaves where and with what answer."""
    answers = answers_of(engine, given.preprocessing, split.images)
    whole = answers[-1].argmax(axis=1)
    torch_says = first_classes(given.eager, given.preprocessing, split.images)
    judged = judge_classes(whole, torch_says, split, given.target.precision, given.options.max_accuracy_drop)
    found, shares = decided(answers, confidence, thresholds)
    targets = split.targets.cpu().numpy()
    top1 = float((found == targets).mean())
    return (
        StagedAccuracy(images=len(targets), top1=top1, ensemble_top1=judged.top1, shares=shares),
        judged.model_copy(update={"top1": top1, "agreement": float((found == torch_says).mean())}),
    )
