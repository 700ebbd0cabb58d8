import os
import sys

import pytest

from nat2deploy import machine
from nat2deploy.target import Fingerprint

ARM = """processor\t: 0
Features\t: fp asimd evtstrm crc32
CPU implementer\t: 0x41
CPU part\t: {}

processor\t: 1
Features\t: fp asimd evtstrm crc32
CPU implementer\t: 0x41
CPU part\t: {}
"""
CPU = "sys/devices/system/cpu"


class FakeMachine:
    """The system's files in a folder, none of them there at first; this thread runs on core 3."""

    def __init__(self, root):
        self.root = root

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def facts(self):
        found = machine.machine_facts(self.root)
        assert Fingerprint(**found).model_dump(exclude={"gpu"}) == found
        return found


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 3})
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return FakeMachine(tmp_path)


def test_x86_has_a_model_name_and_its_telling_flags(fake):
    fake.write(
        "proc/cpuinfo", "model name\t: A CPU @ 3 GHz\nflags\t\t: fpu avx2 sse4_2\nmodel name\t: other\n"
    )
    facts = fake.facts()
    assert (facts["cpu"], facts["flags"]) == ("A CPU @ 3 GHz", ["sse4_2", "avx2"])


def test_boards_of_the_same_instruction_set_and_cores_are_told_apart(fake):
    names = []
    for board, parts in (("Raspberry Pi 3", ("0xd03",) * 2), ("Raspberry Pi 4", ("0xd08",) * 2)):
        fake.write("proc/cpuinfo", ARM.format(*parts))
        fake.write("proc/device-tree/model", board + "\0")
        names.append(fake.facts()["cpu"])
    assert names == ["Raspberry Pi 3 (0x41/0xd03)", "Raspberry Pi 4 (0x41/0xd08)"]
    fake.write("proc/cpuinfo", ARM.format("0xd05", "0xd0a"))
    assert fake.facts()["cpu"] == "Raspberry Pi 4 (0x41/0xd05, 0x41/0xd0a)"
    assert fake.facts()["flags"] == ["asimd"]


def test_apples_processors_are_told_apart(fake, monkeypatch):
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine.platform, "processor", lambda: "arm")
    assert fake.facts()["cpu"] == "arm"  # no sysctl here
    for brand in ("Apple M1", "Apple M3 Pro"):
        fake.write("bin/sysctl", f'#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo {brand}\n')
        (fake.root / "bin/sysctl").chmod(0o755)
        assert fake.facts()["cpu"] == brand
    fake.write("bin/sysctl", "#!/bin/sh\necho unknown oid; exit 1\n")
    assert fake.facts()["cpu"] == "arm"


def test_memory_is_known_or_not(fake, monkeypatch):
    assert machine.memory_bytes() > 1 << 24
    monkeypatch.delattr(machine.os, "sysconf")
    assert machine.memory_bytes(fake.root) is None


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers_limit_lowers_the_memory(fake, file):
    whole = machine.memory_bytes(fake.root)
    fake.write(f"sys/fs/cgroup/{file}", f"{1 << 28}\n")
    assert machine.memory_bytes(fake.root) == 1 << 28
    for unlimited in ("max\n", "9223372036854771712\n", ""):
        fake.write(f"sys/fs/cgroup/{file}", unlimited)
        assert machine.memory_bytes(fake.root) == whole


def test_a_machine_without_any_of_the_files_has_a_name_all_the_same(fake):
    facts = fake.facts()
    assert facts["cpu"] and facts["governor"] == "unknown"
    clock = machine.clock_facts(fake.root)
    assert set(clock.values()) == {"unknown", None}


def test_the_clock_of_the_core_that_this_thread_runs_on(fake):
    for core, governor, khz in ((0, "powersave", 800_000), (3, "performance", 3_400_000)):
        fake.write(f"{CPU}/cpu{core}/cpufreq/scaling_governor", governor + "\n")
        fake.write(f"{CPU}/cpu{core}/cpufreq/scaling_driver", "intel_pstate\n")
        fake.write(f"{CPU}/cpu{core}/cpufreq/scaling_min_freq", "800000\n")
        fake.write(f"{CPU}/cpu{core}/cpufreq/scaling_max_freq", "3500000\n")
        fake.write(f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq", f"{khz}\n")
        fake.write(f"{CPU}/cpu{core}/thermal_throttle/core_throttle_count", f"{core}\n")
    clock = machine.clock_facts(fake.root)
    assert clock == {
        "governor": "performance",
        "driver": "intel_pstate",
        "boost": None,
        "min_mhz": 800.0,
        "max_mhz": 3500.0,
        "mhz": 3400.0,
        "power_mode": None,
        "throttled": None,
        "throttle_count": 3,
    }


@pytest.mark.parametrize(
    ("name", "text", "boost"),
    [
        ("intel_pstate/no_turbo", "0\n", True),
        ("intel_pstate/no_turbo", "1\n", False),
        ("cpufreq/boost", "1\n", True),
        ("cpufreq/boost", "0\n", False),
        ("cpu3/cpufreq/boost", "1\n", True),
        ("cpu0/cpufreq/boost", "1\n", None),
    ],
)
def test_boost(fake, name, text, boost):
    fake.write(f"{CPU}/{name}", text)
    assert machine.clock_facts(fake.root)["boost"] is boost


def test_without_cpufreq_the_frequency_is_that_of_cpuinfo(fake):
    fake.write(
        "proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 800.1\n\nprocessor\t: 3\ncpu MHz\t\t: 2445.404\n"
    )
    assert machine.clock_facts(fake.root)["mhz"] == 2445.404
    fake.write("proc/cpuinfo", "processor\t: 3\ncpu MHz\t\t: nan\n")
    assert machine.clock_facts(fake.root)["mhz"] is None


def test_a_jetsons_power_mode(fake):
    fake.write("var/lib/nvpmodel/status", "pmode:0002\n")
    assert machine.clock_facts(fake.root)["power_mode"] == "2"
    models = (
        "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=20 NAME=X >\n"
    )
    fake.write("etc/nvpmodel.conf", models)
    assert machine.clock_facts(fake.root)["power_mode"] == "MAXN_SUPER (2)"


@pytest.mark.parametrize(
    ("program", "throttled"),
    [
        ("echo throttled=0x50005", "0x50005"),
        ("echo throttled=0x0", "0x0"),
        ("echo VCHI initialization failed; exit 255", None),
        ("exit 1", None),
    ],
)
def test_a_raspberry_pis_throttle_bits(fake, program, throttled):
    fake.write("bin/vcgencmd", f'#!/bin/sh\n[ "$1" = get_throttled ] || exit 9\n{program}\n')
    (fake.root / "bin/vcgencmd").chmod(0o755)
    assert machine.clock_facts(fake.root)["throttled"] == throttled


def test_what_load_and_temperature_move_does_not_last(fake):
    fake.write(f"{CPU}/cpu3/cpufreq/scaling_cur_freq", "800000\n")
    before = fake.facts()
    fake.write(f"{CPU}/cpu3/cpufreq/scaling_cur_freq", "900000\n")
    assert fake.facts() != before
    assert machine.lasting_facts(fake.facts()) == machine.lasting_facts(before)
    fake.write(f"{CPU}/cpufreq/boost", "0\n")
    assert machine.lasting_facts(fake.facts()) != machine.lasting_facts(before)


def test_onnxruntimes_version_is_that_of_what_is_imported(monkeypatch):
    """Whichever of its packages brought it; their metadata are asked only where it cannot be imported."""
    import onnxruntime

    installed = {"onnxruntime": "1.0", "onnxruntime-gpu": "2.0"}
    monkeypatch.setattr(machine, "_version", lambda name: installed.get(name, "not installed"))
    assert machine.onnxruntime_version() == onnxruntime.__version__
    assert machine.machine_facts()["libraries"]["onnxruntime"] == onnxruntime.__version__
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert machine.onnxruntime_version() == "1.0"
    del installed["onnxruntime"]
    assert machine.onnxruntime_version() == "2.0"
    installed.clear()
    assert machine.onnxruntime_version() == ""
    assert machine.machine_facts()["libraries"]["onnxruntime"] == "not installed"
