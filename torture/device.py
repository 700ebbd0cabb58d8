"""A device that vanishes while it is profiled: a real sshd on loopback, killed and started again."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from nat2deploy.cost.table import load_table
from nat2deploy.measure.plan import CLASS_LADDER
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import load_space
from torture.commands import REPOSITORY, Command, Ended
from torture.results import half_written
from torture.scenario import Bench, Found

_RETURNS_AFTER_S = 3.0


def vanishing_device(bench: Bench) -> Found:
    """Profile through ssh: the device goes and comes back, and goes until the next command."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "remote"))
    import pytest
    from devices import make_python, start_sshd

    found = Found("vanishing device")
    folder = bench.folder / "device"
    folder.mkdir()
    try:
        sshd = start_sshd(folder)
    except pytest.skip.Exception as error:
        found.skipped = str(error)
        return found
    try:
        python = make_python(folder / "python", "numpy", "onnxruntime")
        options = [word for option in sshd.options for word in ("--ssh-option", option)]
        words = (
            *("profile", "--device", sshd.address, "--python", str(python), *options),
            *("--space", str(bench.config.with_name("space.toml")), "--interval", "0.001"),
            *("--time-limit", "5", "--calibration", "8", "--held-out", "8"),
        )
        said = bench.folder / "said"

        def vanish(out: Path) -> Command:
            command = Command.start(*words, "--out", str(out), said=said)
            _wait_until_it_measures(sshd)
            sshd.vanish()
            found.faults += 1
            return command

        first, second = (folder / name / "table.json" for name in ("first", "second"))
        command = vanish(first)
        time.sleep(_RETURNS_AFTER_S)
        sshd.come_back()
        _check_table(command.end(), bench, first, found)
        ended = vanish(second).end()
        found.faults -= 1  # counted once more now
        bench.check_refusal(ended, second.parent, found)
        sshd.come_back()
        _check_table(Command.start(*words, "--out", str(second), said=said).end(), bench, second, found)
        left = list((sshd.home / ".cache/nat2deploy/jobs").glob("[!.]*"))
        found.problems += [f"{path.name} is left on the device" for path in left]
    finally:
        sshd.vanish()
    return found


def _wait_until_it_measures(sshd: object) -> None:
    """Until the device measures: its job has arrived there."""
    jobs = sshd.home / ".cache/nat2deploy/jobs"  # type: ignore[attr-defined]
    deadline = time.monotonic() + 120
    while not any(jobs.glob("*/*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)


def _check_table(ended: Ended, bench: Bench, out: Path, found: Found) -> None:
    found.runs += 1
    if ended.code != 0:
        found.problems.append(f"did not finish: exit code {ended.code}: {ended.error}")
        return
    space = load_space(str(bench.config.with_name("space.toml")))
    table = load_table(out)
    blocks = {signature.key for signature in every_signature(space, CLASS_LADDER)}
    missing = blocks - table.entries.keys()
    if missing:
        found.problems.append(f"{len(missing)} blocks are missing, such as {min(missing)}")
    found.problems += half_written(out.parent)
    found.problems += [f"{path.name} is left" for path in out.parent.iterdir() if path != out]
