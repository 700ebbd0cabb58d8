"""How much is said on standard error, and that nobody's colours are forced on others."""

import logging
import os
import subprocess
import sys

import pytest
import typer

from nat2deploy.cli import main
from nat2deploy.cli import progress as progress_module
from nat2deploy.cli.app import app
from nat2deploy.cli.progress import progress
from nat2deploy.cli.verbosity import Verbosity, choose_verbosity, remark, verbosity
from nat2deploy.errors import UserError
from nat2deploy.progress import remarks

PLAIN = ("dashboard", "plot", "kit")  # print where they wrote, or serve, and no data


def leaves(command, name=""):
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
    else:
        for child, inner in children.items():
            yield from leaves(inner, child)


@pytest.fixture(autouse=True)
def back_to_normal():
    yield
    choose_verbosity(verbose=False, quiet=False)


@pytest.fixture
def run(monkeypatch, capfd):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nat2deploy", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(("name", "command"), list(leaves(typer.main.get_command(app))))
def test_every_command_takes_them_and_prints_json_where_it_prints_data(name, command):
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--verbose", "-v", "--quiet", "-q"} <= options
    assert "--json" in options or name in PLAIN


def test_an_error_is_one_line_and_tells_where_it_came_from_when_asked(run):
    code, out, err = run("costs", "--arch", "{}")
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    code, out, verbose = run("costs", "--arch", "{}", "--verbose")
    assert code == 2 and out == "" and "Traceback" in verbose and verbose.endswith(err)
    assert run("costs", "--arch", "{}", "--quiet") == (2, "", err)


def test_both_are_refused(run):
    code, _, err = run("profiles", "--quiet", "--verbose")
    assert code == 2 and "do not go together" in err


@pytest.mark.parametrize(
    ("words", "level"),
    [((), logging.WARNING), (("--quiet",), logging.ERROR), (("-v",), logging.INFO), ((), logging.WARNING)],
)
def test_log_records_follow_and_each_command_begins_anew(run, words, level):
    assert run("profiles", *words)[0] == 0
    assert logging.getLogger("nat2deploy").level == level


def test_quiet_has_no_progress_and_no_remarks(capsys):
    choose_verbosity(verbose=False, quiet=True)
    with progress() as report:
        report("stage", 1, 2, "words")
    remark("a remark")
    assert capsys.readouterr() == ("", "")


def test_by_default_each_stage_is_told_once(capsys):
    with progress() as report:
        for done in range(5):
            report("stage", done, 5, f"step {done}")
        report("next", 0, 1)
    remark("a remark")
    assert capsys.readouterr() == ("", "stage: step 4\nnext\na remark\n")


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    one = Clock()
    monkeypatch.setattr(progress_module, "time", one)
    return one


def test_a_long_stage_is_told_before_it_ends(capsys, clock):
    with progress() as report:
        report("short", 0, 1)
        for done in range(1, 7):
            clock.now += 11
            report("long", done, 10, f"step {done}")
        report("of nobody knows how long", 0, 0)
    lines = ["short", "long 40%: step 4", "long: step 6", "of nobody knows how long"]
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in lines))


def test_verbose_tells_steps_once_a_second(capsys, clock):
    choose_verbosity(verbose=True, quiet=False)
    with progress() as report:
        for done in range(5):
            clock.now += 0.6
            report("stage", done, 4, f"step {done}")
    out, err = capsys.readouterr()
    told = [line.split() for line in err.splitlines()]
    assert out == "" and [words[0] for words in told] == ["1.2", "2.4", "3.0"]
    assert told[1][2:] == ["75%", "stage:", "step", "3"]


def remark_in_the_middle():
    with progress() as report:
        report("stage", 0, 2, "step 0")
        remarks(report)("the machine is busy: [load] 9.1")
        report("stage", 1, 2, "step 1")


def test_remarks_are_lines_of_their_own_at_once(capsys):
    with progress() as report:
        report("stage", 0, 2, "step 0")
        remarks(report)("the machine is busy: [load] 9.1")
        assert capsys.readouterr() == ("", "the machine is busy: [load] 9.1\n")
        report("stage", 1, 2, "step 1")
    assert capsys.readouterr() == ("", "stage: step 1\n")


def test_remarks_stand_between_the_steps_of_verbose(capsys):
    choose_verbosity(verbose=True, quiet=False)
    remark_in_the_middle()
    first, said, second = capsys.readouterr().err.splitlines()
    assert first.endswith("stage: step 0") and second.endswith("stage: step 1")
    assert said == "the machine is busy: [load] 9.1"


def test_remarks_stay_above_the_bar_of_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    remark_in_the_middle()
    out, err = capsys.readouterr()
    assert out == ""
    # After the carriage return and the erased line of the bar comes the remark, with a line's end behind it.
    assert "the machine is busy: [load] 9.1\n" in err and err.index("busy") < err.rindex("step 1")


def test_quiet_has_no_remarks_of_a_stage(capsys):
    choose_verbosity(verbose=False, quiet=True)
    remark_in_the_middle()
    assert capsys.readouterr() == ("", "")


def test_together_they_are_refused_and_nothing_changes():
    choose_verbosity(verbose=True, quiet=False)
    with pytest.raises(UserError):
        choose_verbosity(verbose=True, quiet=True)
    assert verbosity() is Verbosity.VERBOSE


@pytest.mark.parametrize("command", [("profiles",), ("costs", "--help"), ("table", "show", "no-such-table")])
def test_no_color_means_none(command):
    """Where a terminal would be taken for granted, and without one."""
    environment = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, "-m", "nat2deploy", *command], capture_output=True, text=True, env=environment
    )
    assert "\x1b[3" not in done.stdout + done.stderr
    del environment["NO_COLOR"], environment["FORCE_COLOR"]
    done = subprocess.run(
        [sys.executable, "-m", "nat2deploy", *command], capture_output=True, text=True, env=environment
    )
    assert "\x1b[" not in done.stdout + done.stderr
