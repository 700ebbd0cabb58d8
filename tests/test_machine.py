import pytest

from nat2deploy import machine

ARM = """processor\t: 0
Features\t: fp asimd evtstrm crc32
CPU implementer\t: 0x41
CPU part\t: {}

processor\t: 1
Features\t: fp asimd evtstrm crc32
CPU implementer\t: 0x41
CPU part\t: {}
"""


@pytest.fixture
def files(monkeypatch, tmp_path):
    """A made-up machine: the kernel's files, none of them there at first."""
    for name in ("_CPU_INFO", "_BOARD", "_GOVERNOR"):
        monkeypatch.setattr(machine, name, tmp_path / name)

    def write(name, text):
        (tmp_path / name).write_text(text)

    return write


def test_x86_has_a_model_name_and_its_telling_flags(files):
    files("_CPU_INFO", "model name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 sse4_2\nmodel name\t: other\n")
    facts = machine.machine_facts()
    assert (facts["cpu"], facts["flags"]) == ("Some CPU @ 3 GHz", ["sse4_2", "avx2"])
    assert facts["governor"] == "unknown"


def test_boards_of_the_same_instruction_set_and_cores_are_told_apart(files):
    names = []
    for board, parts in (("Raspberry Pi 3", ("0xd03",) * 2), ("Raspberry Pi 4", ("0xd08",) * 2)):
        files("_CPU_INFO", ARM.format(*parts))
        files("_BOARD", board + "\0")
        names.append(machine.machine_facts()["cpu"])
    assert names == ["Raspberry Pi 3 (0x41/0xd03)", "Raspberry Pi 4 (0x41/0xd08)"]
    files("_CPU_INFO", ARM.format("0xd05", "0xd0a"))
    assert machine.machine_facts()["cpu"] == "Raspberry Pi 4 (0x41/0xd05, 0x41/0xd0a)"
    assert machine.machine_facts()["flags"] == ["asimd"]


def test_memory_is_known_or_not(monkeypatch):
    assert machine.memory_bytes() > 1 << 24
    monkeypatch.delattr(machine.os, "sysconf")
    assert machine.memory_bytes() is None


def test_a_machine_without_any_of_the_files_has_a_name_all_the_same(files):
    assert machine.machine_facts()["cpu"]
