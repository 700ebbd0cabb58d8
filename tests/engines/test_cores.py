import os
from pathlib import Path

import pytest

from nat2deploy.engines import cores


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A made-up machine: files of the kernel in a folder, and two looks at the ticks."""
    looks: list[dict[int, tuple[int, int]]] = []
    monkeypatch.setattr(cores, "_CPU_FOLDER", tmp_path)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "_QUOTA_V1", tmp_path / "cpu.cfs_quota_us")
    monkeypatch.setattr(cores, "_PERIOD_V1", tmp_path / "cpu.cfs_period_us")
    monkeypatch.setattr(cores, "_ticks", lambda: looks.pop(0) if looks else {})
    monkeypatch.setattr(cores, "_BUSY_WINDOW_S", 0.0)

    def write(name: str, text: str) -> None:
        path: Path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write.looks = looks
    cores.allowed_cores.cache_clear()
    cores.cores_for.cache_clear()
    yield write
    cores.allowed_cores.cache_clear()
    cores.cores_for.cache_clear()


def test_big_cores_then_unshared_then_idle(machine):
    for core, (capacity, siblings) in enumerate([(400, "0"), (1024, "1-2"), (1024, "1-2"), (1024, "3")]):
        machine(f"cpu{core}/cpu_capacity", f"{capacity}\n")
        machine(f"cpu{core}/topology/thread_siblings_list", siblings)
    machine.looks += [dict.fromkeys(range(4), (0, 0)), {0: (10, 10), 1: (1, 10), 2: (10, 10), 3: (9, 10)}]
    assert cores.rank_cores(frozenset(range(4))) == (3, 1, 2, 0)


def test_without_any_kernel_files_the_order_is_the_number(machine):
    assert cores.rank_cores(frozenset({5, 2, 9})) == (2, 5, 9)


def test_same_answer_all_through_a_process_even_while_pinned(machine):
    first = cores.cores_for(1)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, first)
        assert cores.available_cores() == len(before)
        assert set(cores.cores_for(len(before))) == before
    finally:
        os.sched_setaffinity(0, before)
    assert cores.cores_for(1) == first


def test_more_threads_than_cores_get_none(machine):
    assert cores.cores_for(len(os.sched_getaffinity(0)) + 1) == ()


@pytest.mark.parametrize(
    ("quota", "count"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("", 8)]
)
def test_a_containers_quota_lowers_the_count(machine, monkeypatch, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    machine("cpu.max", quota)
    assert cores.available_cores() == count


@pytest.mark.parametrize(("quota", "count"), [("250000", 2), ("50000", 1), ("-1", 8), ("", 8)])
def test_so_does_that_of_the_first_version_of_control_groups(machine, monkeypatch, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    machine("cpu.cfs_quota_us", f"{quota}\n")
    machine("cpu.cfs_period_us", "100000\n")
    assert cores.available_cores() == count


def test_ticks_are_read_off_the_kernels_file(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  9 9 9 9 9 9 9 9 0 0\ncpu3 1 2 3 40 5 6 7 8 0 0\nintr 5\n")
    monkeypatch.setattr(cores, "_STAT", stat)
    assert cores._ticks() == {3: (45, 72)}
