"""8 bits for what is exported: where they are faster, and within its accuracy budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nat2deploy.deploy.judging import first_classes, inputs_of
from nat2deploy.deploy.making import Making
from nat2deploy.deploy.manifest import QuantisationSpec
from nat2deploy.deploy.mixed_precision import MixedPrecision, quantise_within
from nat2deploy.deploy.parity import run_all
from nat2deploy.deploy.quantisable import Model, Quantisable
from nat2deploy.deploy.slower_layers import Measure, slower_in_8_bits
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UnfitNetworkError
from nat2deploy.measure.networks import measure_engines
from nat2deploy.measure.statistics import Summary

_LEAST_S = 0.15
_CALLS = 60
_PRECISION = 0.005


def quantise_network(
    quantiser: Quantisable[Model],
    model: Model,
    given: Making,
    compile_here: Callable[[Model], Engine],
) -> tuple[Model, QuantisationSpec]:
    """Quantise a network: all layers, or those that make it faster; less those that accuracy needs in float.

    Without validation images accuracy asks for none.

    Args:
        quantiser: of the model.
        model: in float32.
        given: with calibration images.
        compile_here: the engine that answers, and that latency is measured of.

    Raises:
        UserError: the model cannot be quantised.
        UnfitNetworkError: tuned for 8 bits, it loses too much with all layers in float.
    """
    assert given.calibration_images is not None
    by_latency = given.options.int8_layers == "faster"
    measure = _measure(quantiser, given, compile_here) if by_latency else None
    slower: tuple[str, ...] = ()
    if measure is not None:
        slower = slower_in_8_bits(quantiser, measure, progress=given.progress)
    spec = QuantisationSpec(
        method=given.options.method,
        calibration_images=len(given.calibration_images),
        qat_epochs=given.options.qat_epochs,
        qat_learning_rate=given.options.qat_learning_rate,
        layers=len(quantiser.layers),
        slower_layers=slower,
    )
    if given.validation is None:
        return quantiser.in_8_bits(slower), spec
    preprocessing, images = given.preprocessing, given.validation.images
    targets = given.validation.targets.cpu().numpy()

    def top1(engine: Engine) -> float:
        # Preprocessed again each time: the whole split in float would take gigabytes.
        return float((first_classes(engine, preprocessing, images) == targets).mean())

    float_top1 = top1(given.untuned)
    lowest_top1 = float_top1 - given.options.max_accuracy_drop - 1e-9
    calibration = inputs_of(preprocessing, given.calibration_images)

    def within(in_float: Sequence[str]) -> MixedPrecision[Model]:
        return quantise_within(
            quantiser,
            model,
            calibration,
            lowest_top1=lowest_top1,
            top1=lambda some: top1(compile_here(some)),
            run=lambda some, shown: run_all(compile_here(some), shown),
            in_float=in_float,
            progress=given.progress,
        )

    found = within(slower)
    sensitive = found.float_layers
    if measure is not None and sensitive:  # what is left in 8 bits between them may no longer pay
        slower = slower_in_8_bits(quantiser, measure, in_float=sensitive, progress=given.progress)
        found = within((*sensitive, *slower))
        sensitive = (*sensitive, *found.float_layers)
    if given.options.qat_epochs > 0 and found.top1 < lowest_top1:
        raise UnfitNetworkError(
            f"tuned for 8 bits, the network has a top-1 of {found.top1:.2%} on {len(targets)} validation "
            f"images with all layers in float, before it {float_top1:.2%}; take another "
            "--qat-learning-rate or more --qat-epochs, or raise --max-accuracy-drop"
        )
    accuracy = {
        "slower_layers": slower,
        "float_layers": sensitive,
        "max_accuracy_drop": given.options.max_accuracy_drop,
        "float_top1": float_top1,
        "top1": found.top1,
    }
    return found.model, spec.model_copy(update=accuracy)


def _measure(
    quantiser: Quantisable[Model], given: Making, compile_here: Callable[[Model], Engine]
) -> Measure[Model]:
    """Measures models side by side, each for as long as its latency asks for."""

    def measured(models: Sequence[Model], each_s: float) -> list[Summary]:
        engines = {str(index): compile_here(one) for index, one in enumerate(models)}
        limit_s = each_s * len(engines)
        found = measure_engines(engines, seed=given.seed, time_limit_s=limit_s, precision=_PRECISION)
        return [found.summaries[name] for name in engines]

    (rough,) = measured([quantiser.in_8_bits(())], _LEAST_S)
    return lambda models: measured(models, max(_LEAST_S, _CALLS * rough.median_ms / 1000))
