"""A network with early exits as stages: one ONNX file each, and thresholds at which images leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nat2deploy.deploy.costs import weights_mb
from nat2deploy.deploy.evidence import LatencyEvidence, StagesEvidence
from nat2deploy.deploy.exit_answers import answers_of, compare_exits, decided, run_exits
from nat2deploy.deploy.exit_thresholds import Fitted, Goal, Point, better, fit_thresholds
from nat2deploy.deploy.judging import Labelled, check_promise, first_classes, inputs_of, judge_classes
from nat2deploy.deploy.made import Made, check_parity, measure, timing
from nat2deploy.deploy.making import Making
from nat2deploy.deploy.manifest import (
    AccuracyEvidence,
    CostSpec,
    EngineSpec,
    Parity,
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
from nat2deploy.deploy.stages_plan import StagesPlan
from nat2deploy.engines.onnx_export import OUTPUT, to_onnx
from nat2deploy.engines.staged import StagedEngine
from nat2deploy.engines.status import version
from nat2deploy.errors import UnfitNetworkError, UserError


@dataclass(frozen=True)
class _Chain:
    """Stages that run, with what the exits answer for the validation images, [exits, N, classes].

    ``expected`` is what PyTorch says each exit answers for the reference images.
    """

    plan: StagesPlan
    models: tuple[bytes, ...]
    quantisation: QuantisationSpec | None
    engine: StagedEngine
    expected: Floats
    parity: Parity
    answers: Floats


@dataclass(frozen=True)
class _Choice:
    """Thresholds for a chain's exits, what they do on the validation split, and which costs they are by."""

    chain: _Chain
    latencies: list[LatencyEvidence] | None
    goal: Goal
    fitted: Fitted
    whole: float
    by: str


def make_stages(plan: StagesPlan, given: Making) -> Made:
    """Export the stages, fit their thresholds on the validation split, and judge them once on the test split.

    For int8 each stage is quantised by itself. Its activations are calibrated on what all of the calibration
    images give it, as none has left yet; layers that must stay in float are searched with all stages run.

    An expected latency is held against what is measured here, or against predictions where the table is of
    another machine. For an accuracy what the table predicts is made small, or MACs without one.

    The stage of an exit at which no validation image leaves is merged with the next one. Where latencies are
    measured, so is that of one at which too few leave to pay for the cut behind it.

    Raises:
        UserError: a target out of reach on the validation split, a latency that is neither measured nor
            predicted, or an engine that does not agree with PyTorch.
    """
    validation = _check(plan, given)
    chain = _built(plan, given, validation)
    latencies = None
    if plan.expected_latency_ms is not None and given.time_limit_s is not None:
        given.progress("latency of each exit")
        latencies = _latencies([chain], given)[0]
    given.progress("thresholds on the validation split")
    choice = _fit(chain, given, validation, latencies)
    if choice.fitted.best is None:
        raise UnfitNetworkError(_out_of_reach(choice, len(validation.images)))
    choice = _merge(choice, given, validation)
    chain, latencies, fitted, best = choice.chain, choice.latencies, choice.fitted, choice.fitted.best
    assert best is not None
    plan, models = chain.plan, chain.models
    if given.promise is not None:
        check_promise(chain.engine, given.preprocessing, given.promise)
    test, accuracy = None, None
    if given.test is not None:
        test, accuracy = _judged(given, chain.engine, fitted.confidence, best.thresholds, given.test)
    if latencies is None and given.time_limit_s is not None:
        latencies = _latencies([chain], given, fitted.confidence)[0]
    names = [f"stage{number}.onnx" for number in range(1, len(models) + 1)]
    spec = StagesSpec(
        confidence=fitted.confidence,  # type: ignore[arg-type]  # one of its own words
        target=plan.target,
        expected_ms=plan.expected_latency_ms,
        by=choice.by,  # type: ignore[arg-type]
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
        validation=StagedAccuracy(
            images=len(validation.images), top1=best.top1, ensemble_top1=choice.whole, shares=best.shares
        ),
        test=test,
        sweep=tuple(
            SweepPoint(thresholds=point.thresholds, top1=point.top1, shares=point.shares)
            for point in fitted.sweep
        ),
        merged=plan.merged,
    )

    def write(folder: Path) -> None:
        for name, model in zip(names, models, strict=True):
            (folder / name).write_bytes(model)

    return Made(
        on_target=True,
        model=names[0],
        spec=EngineSpec(version=version("onnxruntime"), batches=given.batches),
        quantisation=chain.quantisation,
        parity=chain.parity,
        size_mb=weights_mb(models, given.target.precision),
        accuracy=accuracy,
        expected={"logits": chain.expected[-1], "exits": chain.expected},
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


def _built(plan: StagesPlan, given: Making, validation: Labelled) -> _Chain:
    """Export the stages and run them; they say what PyTorch says."""
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
    answers = answers_of(engine, given.preprocessing, validation.images)
    return _Chain(plan, models, quantisation, engine, expected, parity, answers)


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
        lambda some: StagedEngine(some, plan.weights, given.target),
    )


def _latencies(
    chains: Sequence[_Chain], given: Making, confidence: str | None = None
) -> list[list[LatencyEvidence]]:
    """What an image takes that leaves at each exit of each of the chains, measured side by side."""
    assert given.time_limit_s is not None
    engines = {
        f"exit {number} of chain {index}": chain.engine.measuring(
            confidence or chain.plan.confidence or "max-softmax"
        ).up_to(number)
        for index, chain in enumerate(chains, start=1)
        for number in range(1, chain.engine.exits + 1)
    }
    found = iter(measure(engines, given.seed, given.time_limit_s))
    return [[next(found) for _ in chain.models] for chain in chains]


def _fit(
    chain: _Chain, given: Making, validation: Labelled, latencies: list[LatencyEvidence] | None
) -> _Choice:
    """Fit the thresholds of a chain's exits."""
    plan, answers = chain.plan, chain.answers
    targets = validation.targets.cpu().numpy()
    whole = float((answers[-1].argmax(axis=1) == targets).mean())
    goal = Goal(lowest_top1=whole - plan.drop if plan.top1 is None else plan.top1)
    by, costs = _costs(plan, latencies)
    # An exit can only cost more than the one before; measurements of near ones may say otherwise.
    costs = list(np.maximum.accumulate(costs))
    within = goal
    if plan.expected_latency_ms is not None:
        goal = Goal(highest_cost=plan.expected_latency_ms)
        within = Goal(highest_cost=_with_room(plan.expected_latency_ms, costs, len(targets)))
    fitted = fit_thresholds(
        answers, targets, costs, within, confidence=plan.confidence, batch=given.target.batch
    )
    return _Choice(chain, latencies, goal, fitted, whole, by)


def _with_room(limit: float, costs: Sequence[float], images: int) -> float:
    """Less than a limit by what other images may take longer; as much as the first exit at least.

    The mean of so many images, each between the first and the last cost, has at most this standard deviation.
    """
    room = (costs[-1] - costs[0]) / 2 / math.sqrt(images)
    return min(limit, max(limit - room, costs[0]))


def _merge(choice: _Choice, given: Making, validation: Labelled) -> _Choice:
    """Merge stages with the next ones as long as the cuts behind their exits do not pay."""
    while True:
        plan, best, latencies = choice.chain.plan, choice.fitted.best, choice.latencies
        assert best is not None
        unused = [place for place, share in enumerate(best.shares[:-1]) if share == 0]
        merged = unused or _least_worth(best, latencies)
        if not merged:
            return choice
        given.progress("fewer stages")
        chain = _built(plan.without(merged), given, validation)
        before = choice
        if latencies is not None:
            measured, latencies = _latencies([choice.chain, chain], given)
            before = _fit(choice.chain, given, validation, measured)
        after = _fit(chain, given, validation, latencies)
        if after.fitted.best is None:
            return choice
        if not unused and not better(after.fitted.nearest, before.fitted.nearest, choice.goal):
            return before if before.fitted.best is not None else choice
        choice = after


def _least_worth(best: Point, latencies: Sequence[LatencyEvidence] | None) -> list[int]:
    """The early exit at which leaving saves the least latency; none without measured ones."""
    if latencies is None or len(latencies) < 2:
        return []
    medians = [one.median_ms for one in latencies]
    saved = [share * (medians[place + 1] - medians[place]) for place, share in enumerate(best.shares[:-1])]
    return [int(np.argmin(saved))]


def _costs(plan: StagesPlan, latencies: Sequence[LatencyEvidence] | None) -> tuple[str, list[float]]:
    """What each exit costs: measured where a latency is the target, so that it holds; else reproducibly."""
    if latencies is not None:
        return "measured latency", [one.median_ms for one in latencies]
    predicted = [one.latency_ms for one in plan.costs if one.latency_ms is not None]
    if len(predicted) == len(plan.costs):
        return "predicted latency", predicted
    return "macs", [float(one.macs) for one in plan.costs]


def _out_of_reach(choice: _Choice, images: int) -> str:
    plan, nearest = choice.chain.plan, choice.fitted.nearest
    if plan.expected_latency_ms is not None:
        return (
            f"--expected-latency {plan.expected_latency_ms:g}ms: the first exit alone takes "
            f"{nearest.cost:.3g} ms; give more, or export a faster network"
        )
    return (
        f"--stage-accuracy {100 * (plan.top1 or 0):g}%: no thresholds reach it on the "
        f"{images} validation images, the nearest {nearest.top1:.2%} (all stages "
        f"{choice.whole:.2%}); ask for less, or export a better network"
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
    torch_says = first_classes(given.untuned, given.preprocessing, split.images)
    judged = judge_classes(whole, torch_says, split, given.target.precision, given.options.max_accuracy_drop)
    found, shares = decided(answers, confidence, thresholds)
    targets = split.targets.cpu().numpy()
    top1 = float((found == targets).mean())
    return (
        StagedAccuracy(images=len(targets), top1=top1, ensemble_top1=judged.top1, shares=shares),
        judged.model_copy(update={"top1": top1, "agreement": float((found == torch_says).mean())}),
    )
