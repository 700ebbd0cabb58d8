"""What the doctor finds of a device."""

import json
import sys
from dataclasses import replace

import pytest

from nat2deploy.cli import main
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


def test_a_gpus_clock_is_read_and_told(monkeypatch):
    """As a GPU's measurement has it."""
    slowed = {"governor": "performance", "gpu_mhz": 900.0, "gpu_slowed": ["its temperature"]}
    device = Told()
    measure = device.measure
    device.measure = lambda *given: replace(measure(*given), clocks=({"governor": "performance"}, slowed))
    clock = found(device)["clock while measuring"]
    assert clock.state == "warning" and "temperature" in clock.words


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


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; returns its exit code and what it printed."""

    def run(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["nat2deploy", "doctor", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    return run


def test_it_measures_this_machine_for_real_from_the_command_line(doctor, tmp_path):
    code, printed = doctor("--time-limit", "0.5", "--json")
    assert code == 0, printed.err
    areas = json.loads(printed.out)
    assert list(areas) == ["installation", "cpu"]
    assert {"device", "memory", "clock", "load", "noise", "interruptions"} <= {
        f["name"] for f in areas["cpu"]
    }
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_cannot_be_reached_is_a_failure_beside_the_rest(doctor):
    code, printed = doctor("--device", "ssh://nobody@127.0.0.1:9")
    assert code == 1, printed.err
    assert "cannot reach" in printed.out and "1 failure" in printed.out and "numpy" in printed.out
    assert "Traceback" not in printed.err
