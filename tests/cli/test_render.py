"""What people read: nothing of a text is taken for markup."""

from pathlib import Path

import pytest

from nat2deploy.cli import render
from nat2deploy.cli.console import console
from nat2deploy.engines.status import BackendStatus
from nat2deploy.measure.backends import BackendChoice, BackendLatency
from nat2deploy.run.front import Front, FrontNetwork, Measured
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
    choice = BackendChoice((BackendLatency(Target(), 1.0),), "the only one that runs fp32 here", {})
    render.print_backends(choice, as_json=False)
    assert capsys.readouterr().out == "backend      onnxruntime: the only one that runs fp32 here\n"


def front(objectives, costs, **measured):
    network = FrontNetwork(
        id="0123456789", architecture={"r": 28}, top1=0.9, costs=costs, feasible=True, **measured
    )
    return Front(
        space="nano",
        data="digits",
        budgets=(),
        objectives=("top1", *objectives),
        rounds=1,
        evaluations=10,
        complete=True,
        hypervolume=0.5,
        networks=(network,),
    )


SEEN = Measured(median_ms=0.5, p95_ms=0.6, p99_ms=0.7, ci_low_ms=0.5, ci_high_ms=0.5, samples=9)


@pytest.mark.parametrize("columns", ["200", "80", "40"])
def test_a_front_of_several_targets_shows_each_ones_costs(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    costs = {"macs": 2e6, "params": 1e5, "latency_ms@pi5": 9.0, "memory_mb@pi5": 0.05, "latency_ms@here": 0.6}
    found = front(("latency_ms@pi5", "memory_mb@pi5"), costs, measured_on={"here": SEEN})
    render.print_front(found, Path("run"), as_json=False)
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["pi5", "here"]
    columns = ["predicted", "predicted", "measured", "memory@pi5", "MACs", "params", "px"]
    assert lines[1].split() == ["network", "top-1", *columns]
    row = ["0123456789", "90.00", "%", "9.000", "ms", "0.600", "ms", "0.500", "ms", "50.0", "kB", "2.00M"]
    assert lines[2].split()[: len(row)] == row
    words = " ".join(" ".join(lines[3:]).split())
    assert "predicted against measured latency on here: mean error 20.00%" in words


def test_a_front_of_one_table_or_none(capsys):
    costs = {"macs": 2e6, "params": 1e5, "latency_ms": 0.6}
    render.print_front(front(("latency_ms",), costs, measured=SEEN), Path("run"), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["network", "top-1", "predicted", "measured", "MACs", "params", "px"]
    assert "predicted against measured latency: mean error 20.00%" in lines[3]
    del costs["latency_ms"]
    render.print_front(front(("macs",), costs), Path("run"), as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split() == ["network", "top-1", "MACs", "params", "px"]


def test_widths_are_told_where_there_are_several(capsys):
    found = front(("macs",), {"macs": 1e6, "params": 1e5})
    one = found.networks[0].model_copy(update={"architecture": {"r": 28, "w": 1.0}})
    other = one.model_copy(update={"id": "abcdef0123", "architecture": {"r": 28, "w": 1.2}})
    render.print_front(found.model_copy(update={"networks": (one, one)}), Path("run"), as_json=False)
    assert "width" not in capsys.readouterr().out
    render.print_front(found.model_copy(update={"networks": (one, other)}), Path("run"), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "width" in lines[1] and [line.split()[6] for line in lines[2:4]] == ["1", "1.2"]


def test_what_is_printed_is_no_markup(capsys):
    from rich.table import Table

    words = "runs[1]/[red]x[/red] [/b] :smile: [bold]"
    console.print(words)
    table = Table(title=words, box=None)
    table.add_column(words, no_wrap=True)
    table.add_row(words)
    console.print(table)
    assert capsys.readouterr().out.count(words) == 4


def test_all_commands_print_through_that_console():
    """Whoever makes a console of its own, or brackets for it, would bring markup back."""
    allowed = {"console.py", "progress.py"}
    others = [p for p in Path(render.__file__).parent.glob("*.py") if p.name not in allowed]
    assert len(others) > 10
    for path in others:
        text = path.read_text(encoding="utf-8")
        assert "Console(" not in text.replace("plain_console(", "") and "rich.markup" not in text, path.name
