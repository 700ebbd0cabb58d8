"""The learning curve says how good a super-network's ends and its middle are."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nat2deploy.errors import UserError
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.training.curve import LearningCurve
from nat2deploy.training.evaluation import SubNetworkEvaluator


@pytest.fixture(scope="module")
def supernet(space, digits) -> SuperNetwork:
    torch.manual_seed(0)
    return SuperNetwork(space, 1.0, digits.classes)


def curve_in(folder, digits, **more) -> LearningCurve:
    return LearningCurve(folder, digits, seed=0, networks=3, images=60, **more)


def test_points_are_the_evaluators_own(supernet, digits, space, tmp_path):
    evaluator = SubNetworkEvaluator(digits, seed=0, recalibration_images=60, validation_images=60)
    supernet.train()
    point = curve_in(tmp_path, digits).record(supernet, "full", 0.5)
    assert supernet.training
    assert point.largest == evaluator(supernet.eval(), space.largest()).top1
    assert point.smallest == evaluator(supernet, space.smallest(16)).top1
    assert len(point.random) == 3 and (point.phase, point.epochs) == ("full", 0.5)


def test_every_form_holds_every_point(supernet, digits, tmp_path):
    curve = curve_in(tmp_path, digits)
    for epochs, phase in ((1.0, "full"), (2.0, "full"), (3.0, "kernel")):
        curve.record(supernet, phase, epochs)
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [(line["epochs"], line["phase"]) for line in lines] == [
        (1.0, "full"),
        (2.0, "full"),
        (3.0, "kernel"),
    ]
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in ("smallest", "largest"):
        values = [event.value for event in events.Scalars(f"top1/{name}")]
        assert values == pytest.approx([line[name] for line in lines])
    assert [event.value for event in events.Scalars("epochs")] == [1.0, 2.0, 3.0]
    picture = Image.open(tmp_path / "curve.png").convert("L")
    assert picture.size == (840, 480) and picture.getextrema()[0] < 60


def test_a_resumed_training_goes_on_with_the_points_before_it(supernet, digits, tmp_path):
    curve = curve_in(tmp_path, digits)
    for epochs in (1.0, 2.0, 3.0):
        curve.record(supernet, "full", epochs)
    again = curve_in(tmp_path, digits)
    again.record(supernet, "full", 2.0)
    assert [point.epochs for point in again.points] == [1.0, 2.0]
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == 2
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("epochs")) == 2


def test_points_of_two_trainings_do_not_mix(supernet, digits, tmp_path):
    curve_in(tmp_path, digits, training="one").record(supernet, "full", 1.0)
    before = (tmp_path / "curve.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"curve\.jsonl is of another training; choose another folder"):
        curve_in(tmp_path, digits, training="two")
    assert (tmp_path / "curve.jsonl").read_bytes() == before
    assert len(curve_in(tmp_path, digits, training="one").points) == 1
    older = json.loads(before)
    del older["training"]
    (tmp_path / "curve.jsonl").write_text(json.dumps(older) + "\n")
    assert len(curve_in(tmp_path, digits, training="two").points) == 1


def test_a_broken_file_and_a_missing_package_are_user_errors(digits, tmp_path, monkeypatch):
    (tmp_path / "curve.jsonl").write_text('{"epochs": 1}\n')
    with pytest.raises(UserError, match=r"curve\.jsonl cannot be read"):
        curve_in(tmp_path, digits)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'nat2deploy\[curves\]'"):
        curve_in(tmp_path / "new", digits)
