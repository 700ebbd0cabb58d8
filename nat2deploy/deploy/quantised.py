"""8 bits for what is exported, within its accuracy budget on the validation split."""

from __future__ import annotations

from nat2deploy.deploy.judging import first_classes, inputs_of
from nat2deploy.deploy.making import Making
from nat2deploy.deploy.manifest import QuantisationSpec
from nat2deploy.deploy.mixed_precision import Run, quantise_within
from nat2deploy.deploy.quantisable import Model, Quantisable


def quantise_network(
    quantiser: Quantisable[Model], model: Model, given: Making, run: Run[Model]
) -> tuple[Model, QuantisationSpec]:
    """Quantise a network with as few layers in float as its accuracy budget asks for.

    Args:
        quantiser: of the model.
        model: in float32.
        given: with calibration and validation images.
        run: the engine.

    Raises:
        UserError: the model cannot be quantised.
    """
    assert given.calibration_images is not None
    assert given.validation is not None
    options, preprocessing = given.options, given.preprocessing
    targets = given.validation.targets.cpu().numpy()
    said = first_classes(given.eager, preprocessing, given.validation.images)
    float_top1 = float((said == targets).mean())
    found = quantise_within(
        quantiser,
        model,
        inputs_of(preprocessing, given.calibration_images),
        lowest_top1=float_top1 - options.max_accuracy_drop - 1e-9,
        validation=(inputs_of(preprocessing, given.validation.images), targets),
        run=run,
        progress=given.progress,
    )
    return found.model, QuantisationSpec(
        method=options.method,
        calibration_images=len(given.calibration_images),
        qat_epochs=options.qat_epochs,
        float_layers=found.float_layers,
        max_accuracy_drop=options.max_accuracy_drop,
        float_top1=float_top1,
        top1=found.top1,
    )
