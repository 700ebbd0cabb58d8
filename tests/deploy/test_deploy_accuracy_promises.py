"""Accuracy in 8 bits is held against what was known before: the network in float, or 8 bits as a search simulates them."""

import pytest
from deploy_helpers import make_images, make_net, make_test

from nat2deploy.deploy.judging import Promise
from nat2deploy.deploy.making import EngineOptions
from nat2deploy.errors import UserError
from nat2deploy.target import Target


def promised(top1):
    """A simulation of this accuracy, on images of which the network gets half right."""
    images = make_test(0.5)
    classes = images.targets.numpy().copy()
    classes[round(top1 * len(classes)) :] += 1
    return Promise(classes, images)


def test_what_tuning_for_8_bits_lost_counts_against_the_network_before_it(export, tmp_path):
    """The tuned network says otherwise, in float as in 8 bits."""
    given = {
        "module": make_net(1),
        "target": Target(precision="int8"),
        "calibration_images": make_images(40),
        "validation": make_test(1.0),
        "test": make_test(1.0),
        "options": EngineOptions(qat_epochs=1.0),
    }
    with pytest.raises(UserError, match=r"all layers in float, before it 100.00%; .* --qat-learning-rate"):
        export(untuned=make_net(), **given)
    only_test = {**given, "validation": None}
    with pytest.raises(UserError, match=r"loses .* points of accuracy .*--qat-learning-rate"):
        export(untuned=make_net(), **only_test)
    assert not (tmp_path / "out").exists()
    made = export(untuned=make_net(), **{**given, "module": make_net()}).quantisation
    assert made.float_top1 == 1.0 and made.qat_epochs == 1.0


def test_an_engine_that_misses_what_the_search_counted_on_is_not_exported(export, tmp_path):
    given = {"target": Target(precision="int8"), "calibration_images": make_images(40)}
    with pytest.raises(
        UserError, match=r"has a top-1 of .* where 8 bits as the search simulates them have 100.00%"
    ):
        export(promise=promised(1.0), **given)
    assert not (tmp_path / "out").exists()
    assert export(promise=promised(0.5), **given).target.precision == "int8"
