"""What the doctor finds of a device."""

import json
import subprocess
import sys

import pytest

from nat2deploy.cost.certificate import MAX_NOISE
from nat2deploy.doctor.measuring import check_clock, check_device
from nat2deploy.measure.device import LocalDevice
from nat2deploy.target import Target, fingerprint


class Told(LocalDevice):
    """This machine, with what the test says of its measurement."""

    def __init__(self, *, noise=0.005, interrupted=0.0, memory=1 << 33, busy=None):
        super().__init__(Target())
        self.said = (noise, interrupted, memory, busy)
        self.finished = 0

    def warning(self):
        return self.said[3]

    def memory_bytes(self):
        return self.said[2]

    def measure(self, group, progress):
        from dataclasses import replace

        found = super().measure(group, progress)
        return replace(found, noise_floor=self.said[0], interrupted_share=self.said[1], clocks=())

    def finish(self):
        self.finished += 1


def found(device):
    return {f.name: f for f in check_device(device, Target(), 0.5, lambda *_: None)}


def test_a_quiet_device_has_nothing_to_mend():
    device = Told()
    states = {name: f.state for name, f in found(device).items() if name != "clock"}
    assert states == dict.fromkeys(("device", "memory", "load", "noise", "interruptions"), "ok")
    assert device.finished == 1


def test_noise_above_the_certificates_limit_is_a_warning():
    noise = found(Told(noise=MAX_NOISE + 0.001))["noise"]
    assert noise.state == "warning" and "no certificate above 3%" in noise.words and noise.remedy
    assert found(Told(noise=MAX_NOISE))["noise"].state == "ok"


def test_load_interruptions_and_little_memory_are_warnings():
    states = {n: f.state for n, f in found(Told(interrupted=0.2, memory=1 << 28, busy="busy")).items()}
    assert [states[name] for name in ("load", "interruptions", "memory")] == ["warning"] * 3


@pytest.mark.parametrize(
    ("facts", "state", "word"),
    [
        ({"governor": "performance"}, "ok", "performance"),
        ({"governor": "unknown"}, "ok", "unknown"),
        ({"governor": "ondemand"}, "warning", "ondemand"),
        (
            {"governor": "performance", "throttled": "0x50005"},
            "failure",
            "slowed now: under-voltage, throttled",
        ),
        ({"governor": "performance", "throttled": "0x50000"}, "warning", "earlier under-voltage"),
    ],
)
def test_the_clock_is_looked_at(facts, state, word):
    machine = fingerprint("cpu").model_copy(update={"throttled": None, **facts})
    (clock,) = check_clock(machine)
    assert clock.state == state and word in clock.words
    assert bool(clock.remedy) == (state != "ok")


def test_it_measures_this_machine_for_real_from_the_command_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nat2deploy", "doctor", "--time-limit", "0.5", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    areas = json.loads(done.stdout)
    assert list(areas) == ["installation", "cpu"]
    assert {"device", "memory", "clock", "load", "noise", "interruptions"} <= {
        f["name"] for f in areas["cpu"]
    }
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_cannot_be_reached_is_a_failure_beside_the_rest(tmp_path):
    device = "ssh://nobody@127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-m", "nat2deploy", "doctor", "--device", device],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot reach" in done.stdout and "1 failure" in done.stdout and "numpy" in done.stdout
    assert "Traceback" not in done.stderr
