"""Energy meters on a made-up machine: counters in a folder, a clock and a power that tests set."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.measure.energy import (
    CannotMeter,
    Meter,
    NvmlMeter,
    RaplMeter,
    check_fits,
    find_meter,
    measure_energy,
    said_once,
    wrapped,
)

RANGE = 262_143_328_850


class Powercap:
    """The kernel's folder of counters."""

    def __init__(self, root):
        self.root = root

    def zone(self, folder, name, count, most=RANGE):
        place = self.root / folder
        place.mkdir(parents=True)
        (place / "name").write_text(f"{name}\n")
        (place / "max_energy_range_uj").write_text(f"{most}\n")
        self.count(folder, count)

    def count(self, folder, count):
        (self.root / folder / "energy_uj").write_text(f"{count}\n")


@pytest.fixture
def powercap(tmp_path):
    return Powercap(tmp_path / "powercap")


def test_all_packages_count_once_and_their_parts_not_at_all(powercap):
    powercap.zone("intel-rapl:0", "package-0", 1000)
    powercap.zone("intel-rapl:1", "package-1", 5000)
    for other, name in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        powercap.zone(other, name, 0)
    (powercap.root / "intel-rapl").mkdir()
    meter = RaplMeter(powercap.root)
    assert meter.name == "RAPL, package-0 + package-1"
    assert meter.total_mj() == 0
    powercap.count("intel-rapl:0", 3000)
    powercap.count("intel-rapl:1", 5500)
    for other in ("intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        powercap.count(other, 10**9)
    assert meter.total_mj() == pytest.approx(2.5)


def test_a_counter_that_begins_anew(powercap):
    powercap.zone("intel-rapl:0", "package-0", RANGE - 999)
    meter = RaplMeter(powercap.root)
    powercap.count("intel-rapl:0", 1000)
    assert meter.total_mj() == pytest.approx(2.0)
    powercap.count("intel-rapl:0", 4000)
    assert meter.total_mj() == pytest.approx(5.0)


@given(st.integers(1, RANGE), st.integers(0, RANGE), st.lists(st.integers(0, RANGE), max_size=20))
def test_steps_up_to_the_whole_range_add_up_over_every_wrap(most, start, steps):
    count = start % (most + 1)
    for step in steps:
        step %= most + 1
        after = (count + step) % (most + 1)
        assert wrapped(count, after, most) == step
        count = after


def test_without_counters_or_rights_it_says_why(powercap, monkeypatch):
    with pytest.raises(CannotMeter, match="shows no energy counters"):
        find_meter("cpu", powercap.root)
    powercap.zone("intel-rapl:0", "package-0", 0)
    assert find_meter("cpu", powercap.root).name == "RAPL, package-0"

    def refused(path, **options):
        if path.name == "energy_uj":
            raise PermissionError
        return original(path, **options)

    original = type(powercap.root).read_text
    monkeypatch.setattr(type(powercap.root), "read_text", refused)
    with pytest.raises(CannotMeter, match=r"no right to read .*intel-rapl:0/energy_uj; let root permit it"):
        find_meter("cpu", powercap.root)


def test_a_counter_that_is_no_number(powercap):
    powercap.zone("intel-rapl:0", "package-0", "lots")
    with pytest.raises(CannotMeter, match="cannot be read"):
        RaplMeter(powercap.root)


class World(Meter):
    """A clock that only runs with calls and with readings, and a counter that moves every ms."""

    name = "made up"
    window_ms = 50.0

    def __init__(self, idle_w=0.0):
        self.now_ns = 0
        self.exact_mj = 0.0
        self.shown_mj = 0.0
        self.tick = 0
        self.idle_w = idle_w
        self.dead = False
        self.calls = []

    def clock(self):
        return self.now_ns

    def spend(self, ms, watts):
        self.exact_mj += ms * (watts + self.idle_w)
        self.now_ns += round(ms * 1e6)
        if self.now_ns // 1_000_000 > self.tick and not self.dead:
            self.tick, self.shown_mj = self.now_ns // 1_000_000, self.exact_mj

    def run(self, name, ms, watts):
        def call():
            self.calls.append(name)
            self.spend(ms, watts)

        return call

    def total_mj(self):
        self.spend(0.002, 1.0)
        return self.shown_mj


BLOCKS = {"small": (0.013, 10.0), "large": (0.9, 20.0), "slow": (120.0, 5.0)}


def measured(world, limit_s=10.0, seed=0):
    return measure_energy(
        {name: world.run(name, ms, watts) for name, (ms, watts) in BLOCKS.items()},
        {name: ms for name, (ms, _) in BLOCKS.items()},
        world,
        seed=seed,
        limit_s=limit_s,
        clock=world.clock,
    )


def test_every_block_gets_its_own_energy():
    world = World()
    found, word = measured(world)
    assert found == {name: pytest.approx(ms * watts, rel=0.03) for name, (ms, watts) in BLOCKS.items()}
    assert word == "made up, windows of 50 ms"


def test_idle_power_is_part_of_it():
    found, _ = measured(World(idle_w=7.0))
    assert found["large"] == pytest.approx(0.9 * 27, rel=0.03)


def test_the_time_limit_is_kept_and_too_short_a_one_refused():
    world = World()
    measured(world, limit_s=2.0)
    assert world.now_ns < 2.4e9
    with pytest.raises(CannotMeter, match=r"0\.3 s are too short for a window of 50 ms for each of 3 blocks"):
        measured(World(), limit_s=0.3)


def test_whether_it_fits_is_known_beforehand_and_how_long_would_do():
    def check(limit_s):
        world = World()
        runs = {name: world.run(name, ms, watts) for name, (ms, watts) in BLOCKS.items()}
        check_fits(runs, world, limit_s=limit_s, clock=world.clock)

    # Windows of 50, 50 and 360 ms, and a move of the counter (1 ms) or a call (120 ms) before and behind.
    words = r"3 blocks, which take 0\.7 s; raise the time limit 2\.4-fold$"
    with pytest.raises(CannotMeter, match=words):
        check(0.3)
    check(0.71)
    measured(World(), limit_s=0.71)
    world = World()
    world.dead = True
    with pytest.raises(CannotMeter, match="stands still"):
        check_fits({"a": world.run("a", 0.1, 1.0)}, world, limit_s=5.0, clock=world.clock)


def test_windows_are_visited_in_seeded_random_order():
    def order(seed):
        world = World()
        measured(world, seed=seed)
        return [
            name for name, before in zip(world.calls, [None, *world.calls], strict=False) if name != before
        ]

    assert order(1) == order(1) != order(2)


def test_a_dead_counter_is_no_meter():
    world = World()
    world.dead = True
    run = {"a": world.run("a", 0.1, 1.0)}
    with pytest.raises(CannotMeter, match="stands still"):
        measure_energy(run, {"a": 0.1}, world, seed=0, limit_s=5.0, clock=world.clock)


@pytest.fixture
def nvml(monkeypatch):
    """Stand in for NVIDIA's library, which needs a driver."""

    class NVMLError(Exception):
        pass

    def energy(handle):
        if handle == "MIG":
            raise NVMLError("Not Supported")
        return 123_456

    found = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: f"gpu {index}",
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetName=lambda handle: f"name of {handle}",
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setitem(sys.modules, "pynvml", found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


@pytest.mark.parametrize(
    ("visible", "device", "handle"),
    [
        ("", "cuda:1", "gpu 1"),
        ("3,2", "cuda:1", "gpu 2"),
        ("GPU-ab", "cuda:0", "GPU-ab"),
        ("7", "cuda", "gpu 7"),
    ],
)
def test_a_gpu_is_found_as_cuda_counts(nvml, monkeypatch, visible, device, handle):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = find_meter(device)
    assert meter.name == f"NVML, name of {handle}" and meter.total_mj() == 123_456.0


def test_a_gpu_without_counter_driver_or_package_says_why(nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG")
    with pytest.raises(CannotMeter, match="no energy counter: Not Supported"):
        NvmlMeter("cuda:0")

    def no_driver():
        raise nvml.NVMLError("Driver Not Loaded")

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    with pytest.raises(CannotMeter, match="NVML has no cuda:0: Driver Not Loaded"):
        NvmlMeter("cuda:0")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(CannotMeter, match="nvidia-ml-py is not installed; run"):
        NvmlMeter("cuda:0")


def test_texts_that_differ_in_numbers_alone_are_said_once():
    def short(limit, seconds, fold):
        return f"{limit} s are too short for 80 blocks, which take {seconds} s; raise the limit {fold}-fold"

    words = [short(3.1, 4.0, 1.3), short(3.2, 4.9, 1.6), "a meter, windows of 5 ms", short(3, 4, 1.4)]
    assert said_once(words) == f"{words[1]} | {words[2]}"
    assert said_once([]) == ""
    assert len(said_once([short(n / 7, n, n / 3) for n in range(100)])) < 200
