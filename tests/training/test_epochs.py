"""What each epoch did is kept, judged where that is asked for, and a first phase ends in time."""

from __future__ import annotations

import json

import pytest

from nat2deploy.training.epochs import Epoch, EpochRecord, PatientRecord
from nat2deploy.training.evaluation import Accuracy
from nat2deploy.training.exits import JudgedExits
from nat2deploy.training.loop import EpochDone


def judged(top1, loss=1.0):
    return JudgedExits((0.5, 0.5), {(1,): Accuracy(0.1, 2.0, 50), (1, 2): Accuracy(top1, loss, 50)})


def judge_by(*top1s):
    left = iter(top1s)
    return lambda: judged(next(left))


def patient(tmp_path, *top1s, patience=2, most=9, tag="t"):
    return PatientRecord(
        judge_by(*top1s), patience=patience, most=most, found=tmp_path / "found.json", tag=tag
    )


def test_an_epoch_is_what_it_trained_with_and_what_it_was_judged_as():
    record = EpochRecord(1, judge_by(0.7))
    record.epoch_done(EpochDone(1.0, 0.01, 0.9))
    assert record.epochs == [Epoch(1, 1.0, 0.01, 0.9, 0.7, 1.0)]  # of all exits together
    assert record.judged == [judged(0.7)] and not record.stop


def test_without_a_judge_only_training_is_known():
    record = EpochRecord(2)
    record.epoch_done(EpochDone(0.5, 0.01, 0.9))
    assert record.epochs == [Epoch(2, 0.5, 0.01, 0.9)] and record.judged == []


@pytest.mark.parametrize("judge", [None, judge_by(0.1 + 0.2, 1 / 3)])
def test_its_state_brings_it_back_to_the_last_bit(judge):
    record = EpochRecord(1, judge)
    for n in (1, 2):
        record.epoch_done(EpochDone(n / 3, 0.1 / n, 0.7 / n))
    again = EpochRecord(1, judge)
    again.restore(record.state())
    assert (again.epochs, again.judged) == (record.epochs, record.judged)


@pytest.mark.parametrize(
    ("top1s", "best"), [((0.3, 0.2, 0.1), 1), ((0.3, 0.4, 0.4, 0.2), 2), ((0.1,) * 3, 1)]
)
def test_patience_ends_it_behind_the_best_epoch(tmp_path, top1s, best):
    record = patient(tmp_path, *top1s)
    for n in range(1, len(top1s) + 1):
        assert not record.stop and not record.found.exists()
        record.epoch_done(EpochDone(float(n), 0.1, 1.0))
    assert record.stop and record.best == best


def test_the_most_epochs_end_it_too(tmp_path):
    record = patient(tmp_path, 0.1, 0.2, most=2)
    record.epoch_done(EpochDone(1.0, 0.1, 1.0))
    assert not record.stop
    record.epoch_done(EpochDone(2.0, 0.1, 1.0))
    assert record.stop and record.best == 2


def test_what_was_found_is_known_to_the_next_one_of_its_tag(tmp_path):
    record = patient(tmp_path, 0.2, 0.1, patience=1)
    for n in (1, 2):
        record.epoch_done(EpochDone(float(n), 0.1, 1.0))
    assert json.loads(record.found.read_text())["tag"] == "t"
    again = patient(tmp_path, patience=1)
    assert again.stop and (again.epochs, again.judged) == (record.epochs, record.judged)
    other = patient(tmp_path, patience=1, tag="another")
    assert not other.stop and other.epochs == []
