"""Threads that wait for one another leave their core to other programs."""

import os
import subprocess
import sys

import pytest

from nat2deploy.cli import app as application
from nat2deploy.cli import main
from nat2deploy.cli.app import SPIN_COUNT


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_spinning_is_short_unless_the_environment_says_how(given, spins, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # what a command sets is taken back afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = []
    monkeypatch.setattr(application, "app", lambda **_: found.append(os.environ.get("GOMP_SPINCOUNT")))
    with pytest.raises(SystemExit):
        main()
    assert found == [spins]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PyTorch brings GNU OpenMP on Linux")
def test_a_program_has_it_before_pytorch_reads_it():
    code = (
        "import sys; from nat2deploy.cli import app, main\n"
        "assert 'torch' not in sys.modules\n"
        "app.app = lambda **_: __import__('torch')\n"
        "main()"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"OMP_DISPLAY_ENV": "verbose"},  # OpenMP says what it has read
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in done.stderr
