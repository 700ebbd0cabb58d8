from importlib.util import find_spec

import pytest
import torch

from nat2deploy import gpu
from nat2deploy.clock_state import WorkingClock
from nat2deploy.errors import UserError
from nat2deploy.target import fingerprint

# Answers as the driver's program does: one line of values, or an error for a field that it does not know.
PROGRAM = """#!/bin/sh
case "$1" in --id=GPU-1234) ;; *) echo "No devices were found"; exit 6;; esac
case "$2" in
    --query-gpu=driver_version,clocks.sm,clocks.max.sm) echo "{basic}";;
    --query-gpu={known}.applications_clocks_setting) echo "{locked}";;
    --query-gpu=clocks.sm) echo "{clock}";;
    --query-gpu={known}.active) echo "{active}";;
    --query-gpu=utilization.gpu) echo "{busy}";;
    *) echo "Field \\"x\\" is not a valid field to query."; exit 2;;
esac
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    def install(**changed):
        answers = {
            "basic": "580.95.05, 1500, 1980",
            "known": "clocks_event_reasons",
            "locked": "Active",
            "busy": "0",
            "clock": "1980",
            "active": "0x0000000000000000",
        }
        program = tmp_path / "nvidia-smi"
        program.write_text(PROGRAM.format(**{**answers, **changed}))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def test_the_driver_says_its_version_and_clocks(driver):
    driver()
    assert gpu.driver_facts("GPU-1234") == {
        "driver": "580.95.05",
        "clock_mhz": 1500,
        "max_clock_mhz": 1980,
        "clocks_locked": True,
    }


@pytest.mark.parametrize(
    ("answers", "facts"),
    [
        ({"known": "clocks_throttle_reasons", "locked": "Not Active"}, {"clocks_locked": False}),
        ({"known": "none"}, {}),
        ({"locked": "[N/A]"}, {}),
    ],
)
def test_older_drivers_say_less(driver, answers, facts):
    driver(**{"basic": "470.1, [N/A], 1980", **answers})
    assert gpu.driver_facts("GPU-1234") == {"driver": "470.1", "max_clock_mhz": 1980, **facts}


def test_a_gpu_that_the_driver_does_not_know_has_no_facts(driver):
    driver()
    assert gpu.driver_facts("GPU-5678") == {}


def test_an_answer_of_another_form_is_no_fact(driver):
    driver(basic="a, b")
    assert gpu.driver_facts("GPU-1234") == {}


def test_no_driver_no_facts(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.driver_facts("GPU-1234") == {}


class Properties:
    name = "NVIDIA Some"
    major, minor = 8, 9
    total_memory = 24 << 30
    clock_rate = 2_520_000
    uuid = "1234"


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: Properties.name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)


def test_facts_of_pytorch_and_the_driver_make_the_fingerprint(driver, one_gpu):
    driver(basic="580.95.05, 1500, 2500")
    here = fingerprint("cuda:0")
    assert here.libraries["cuda"] == torch.version.cuda
    assert ("tensorrt-rtx-cu13" in here.libraries) is (find_spec("tensorrt_rtx") is not None)
    assert set(here.libraries) >= set(fingerprint().libraries)
    assert here.gpu.model_dump() == {
        "name": "NVIDIA Some",
        "compute_capability": "8.9",
        "memory_bytes": 24 << 30,
        "driver": "580.95.05",
        "clock_mhz": 1500,
        "max_clock_mhz": 2500,
        "clocks_locked": True,
    }
    assert gpu.gpu_memory_bytes(0) == 24 << 30


def test_without_the_driver_pytorch_alone_is_asked(tmp_path, monkeypatch, one_gpu):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = fingerprint("cuda:0").gpu
    assert (found.max_clock_mhz, found.driver, found.clocks_locked) == (2520, None, None)


def test_a_busy_gpu_is_a_warning(driver, one_gpu):
    driver(busy="73")
    assert "cuda:0 is busy: in use 73 % of the time" in gpu.busy_warning(0)
    driver(busy="3")
    assert gpu.busy_warning(0) is None
    driver(busy="[N/A]")
    assert gpu.busy_warning(0) is None


@pytest.mark.parametrize(
    ("answers", "facts"),
    [
        ({}, {"gpu_mhz": 1980, "gpu_slowed": []}),
        ({"active": "0x0000000000000001"}, {"gpu_mhz": 1980, "gpu_slowed": []}),  # idle
        ({"active": "0x0000000000000102"}, {"gpu_mhz": 1980, "gpu_slowed": []}),  # as set by somebody
        (
            {"active": "0x00000000000000A4", "clock": "1305"},
            {"gpu_mhz": 1305, "gpu_slowed": ["its power limit", "its temperature", "a power brake"]},
        ),
        (
            {"known": "clocks_throttle_reasons", "active": "0x0000000000000068"},
            {"gpu_mhz": 1980, "gpu_slowed": ["its hardware", "its temperature"]},
        ),
        ({"known": "none", "clock": "[N/A]"}, {}),
    ],
)
def test_the_clock_at_work_and_what_lowers_it(driver, one_gpu, answers, facts):
    driver(**answers)
    found = gpu.clock_at_work(0)
    assert found == facts
    WorkingClock(governor="performance", **found)


def test_a_number_beyond_the_last_gpu_is_one_line(one_gpu):
    gpu.check_visible(0)
    with pytest.raises(UserError, match="device cuda:2: the last GPU that PyTorch sees is cuda:0; choose"):
        gpu.check_visible(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_facts_are_refused():
    assert gpu.visible_gpus() == []
    for ask in (gpu.check_visible, gpu.gpu_facts, gpu.gpu_memory_bytes, gpu.busy_warning, gpu.clock_at_work):
        with pytest.raises(UserError, match="sees no GPU here"):
            ask(0)


@pytest.mark.gpu
def test_the_fingerprint_describes_this_gpu():
    found = fingerprint("cuda:0").gpu
    assert found.name == torch.cuda.get_device_name(0)
    assert found.memory_bytes > 1 << 30
    assert found.same_gpu(fingerprint("cuda:0").gpu)
