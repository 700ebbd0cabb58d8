"""What people read: nothing of a text is taken for markup."""

import pytest

from nat2deploy.cli import render
from nat2deploy.engines.status import BackendStatus
from nat2deploy.measure.backends import BackendChoice, BackendLatency
from nat2deploy.target import Target, fingerprint

REASON = "not installed; run `pip install 'nat2deploy[openvino]'`"


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_a_reason_with_brackets_is_printed_whole(capsys):
    render.print_devices([BackendStatus("openvino", False, "", REASON)], fingerprint(), as_json=False)
    assert REASON in capsys.readouterr().out


def test_the_choice_of_a_backend_names_every_ratio_and_reason(capsys):
    measured = (BackendLatency(Target(), 1.0), BackendLatency(Target(backend="torch"), 3.456))
    choice = BackendChoice(measured, "the fastest on 6 networks", {"openvino": REASON})
    render.print_backends(choice, as_json=False)
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("backend      onnxruntime: the fastest on 6 networks; geometric means")
    assert [line.split() for line in lines[1:3]] == [["onnxruntime", "1.00"], ["torch", "3.46"]]
    assert REASON in lines[3]
    render.print_backends(choice, as_json=True)  # JSON is to follow on standard output
    assert capsys.readouterr().out == ""


def test_a_choice_without_measurement_has_no_ratios(capsys):
    choice = BackendChoice((BackendLatency(Target(), 1.0),), "chosen before the interruption", {})
    render.print_backends(choice, as_json=False)
    assert capsys.readouterr().out == "backend      onnxruntime: chosen before the interruption\n"
