"""Energy of an inference, where the machine counts it: on CPUs by RAPL, on NVIDIA's GPUs by NVML."""

from __future__ import annotations

import importlib
import math
import os
import random
import re
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from nat2deploy.machine import read_fact
from nat2deploy.measure.clock import Clock, Run

POWERCAP = Path("/sys/class/powercap")
_ZONE = re.compile(r"[a-z-]+:\d+")  # a part of a package, such as its memory, has a second number
_MOST_WINDOWS = 9
_FEWEST_CALLS = 3
_PATIENCE = 10  # a counter that stands still for so many windows is dead
_MJ_A_UJ = 1e-3
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class CannotMeter(Exception):
    """There is no working meter; the text says why."""


class Meter(ABC):
    """A counter of energy.

    Attributes:
        name: what is counted.
        window_ms: the counter moves often enough within this time.
    """

    name: str
    window_ms: float

    @abstractmethod
    def total_mj(self) -> float:
        """Return what has been counted since some moment, in mJ; never less than before.

        Raises:
            CannotMeter: the counter cannot be read.
        """


class RaplMeter(Meter):
    """Running Average Power Limit: the energy of all CPU packages, cores and caches and all, without memory.

    Intel's and newer AMD CPUs; the kernel updates the counters about every ms, and since 2020 only root may
    read them.

    Args:
        root: where the kernel keeps the counters.

    Raises:
        CannotMeter: no counters, or no right to read them.
    """

    window_ms = 50.0

    def __init__(self, root: Path = POWERCAP) -> None:
        zones: dict[str, Path] = {}
        # Some packages are shown twice, as intel-rapl:0 and intel-rapl-mmio:0; the shorter name is taken.
        for zone in sorted(root.glob("*:*"), key=lambda path: (len(path.name), path.name)):
            name = read_fact(zone / "name") if _ZONE.fullmatch(zone.name) else ""
            if name.startswith("package"):
                zones.setdefault(name, zone)
        if not zones:
            raise CannotMeter("this machine shows no energy counters (RAPL)")
        self.name = f"RAPL, {' + '.join(zones)}"
        self._counters = [
            (zone / "energy_uj", _whole(zone / "max_energy_range_uj")) for zone in zones.values()
        ]
        self._last = [_whole(counter) for counter, _ in self._counters]
        self._total_uj = 0

    def total_mj(self) -> float:
        """Return the energy since this meter was made, in mJ, of all packages."""
        for index, (counter, most) in enumerate(self._counters):
            now = _whole(counter)
            self._total_uj += wrapped(self._last[index], now, most)
            self._last[index] = now
        return self._total_uj * _MJ_A_UJ


class NvmlMeter(Meter):
    """NVIDIA's management library: the energy of one whole GPU with its memory, by ``nvidia-ml-py``.

    The counter exists since Volta, and not for a part of a GPU (MIG). It moves every 20 to 100 ms.

    Args:
        device: such as ``cuda:0``, counted as CUDA counts with ``CUDA_VISIBLE_DEVICES``. Among GPUs of
            several models, CUDA counts as NVML does with ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` only.

    Raises:
        CannotMeter: the package or the driver is missing, or the GPU has no counter.
    """

    window_ms = 300.0

    def __init__(self, device: str) -> None:
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            missing = "nvidia-ml-py is not installed; run `pip install 'nat2deploy[energy]'`"
            raise CannotMeter(missing) from None
        try:
            self._nvml.nvmlInit()
            self._handle = self._find(int(device.partition(":")[2] or 0))
            name = self._nvml.nvmlDeviceGetName(self._handle)
        except (self._nvml.NVMLError, ValueError) as error:
            raise CannotMeter(f"NVML has no {device}: {error}") from None
        self.name = f"NVML, {name}"
        self.total_mj()

    def _find(self, index: int) -> Any:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if index < len(visible) and visible[index]:
            place = visible[index].strip()
            if not place.isdigit():
                return self._nvml.nvmlDeviceGetHandleByUUID(place)
            index = int(place)
        return self._nvml.nvmlDeviceGetHandleByIndex(index)

    def total_mj(self) -> float:
        """Return the GPU's energy since its driver was loaded, in mJ."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise CannotMeter(f"the GPU has no energy counter: {error}") from None


def find_meter(device: str, root: Path = POWERCAP) -> Meter:
    """Return the meter for a target's device.

    Raises:
        CannotMeter: there is none.
    """
    return NvmlMeter(device) if device.startswith("cuda") else RaplMeter(root)


def wrapped(before: int, now: int, most: int) -> int:
    """Return how far a counter went that begins anew at zero behind ``most``, and did so once at most."""
    return now - before if now >= before else now + most + 1 - before


def check_fits(
    runs: Mapping[str, Run], meter: Meter, *, limit_s: float, clock: Clock = perf_counter_ns
) -> None:
    """Check, before time is set aside for it, that the energy of candidates can be measured in it.

    Args:
        runs: as of ``measure_energy``; each is called twice.
        meter: what counts.
        limit_s: seconds that would be set aside.
        clock: counts nanoseconds.

    Raises:
        CannotMeter: the counter stands still or cannot be read, or one window each takes longer.
    """

    def call_ms(run: Run) -> float:
        run()
        start = clock()
        run()
        return (clock() - start) / 1e6

    _check_round({name: call_ms(run) for name, run in runs.items()}, meter, _step_ms(meter, clock), limit_s)


def measure_energy(
    runs: Mapping[str, Run],
    call_ms: Mapping[str, float],
    meter: Meter,
    *,
    seed: int,
    limit_s: float,
    clock: Clock = perf_counter_ns,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[dict[str, float], str]:
    """Run each candidate back to back in several windows; return its energy a call in mJ, and what was done.

    A window begins and ends where the counter moves, so that the counter's coarse steps cost no accuracy. The
    result is the median over a candidate's windows; the windows of all are interleaved in random order. The
    power that the machine takes when idle is not subtracted.

    Args:
        runs: name to callable, which returns when the work is done.
        call_ms: how long one call takes.
        meter: what counts.
        seed: of the visiting orders.
        limit_s: seconds that all windows may take together.
        clock: counts nanoseconds.
        progress: told the share done.

    Raises:
        CannotMeter: the counter stands still or cannot be read, or the limit is too short for one window
            each.
    """
    window_ms = _windows_ms(call_ms, meter)
    round_s = _check_round(call_ms, meter, _step_ms(meter, clock), limit_s)
    rounds = min(int(limit_s / round_s), _MOST_WINDOWS)
    order, shuffle = list(runs), random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for done in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            found[name].append(_window_mj(runs[name], meter, window_ms[name], clock))
        progress((done + 1) / rounds)
    energies = {name: statistics.median(values) for name, values in found.items()}
    return energies, f"{meter.name}, windows of {meter.window_ms:g} ms"


def said_once(words: Sequence[str]) -> str:
    """Join what was said of chunks; of texts that differ in numbers alone the last number's largest."""
    forms: dict[str, str] = {}
    for text in words:
        form = _NUMBER.sub("", text)
        forms[form] = max(text, forms.get(form, text), key=_last_number)
    return " | ".join(forms.values())


def _last_number(text: str) -> float:
    return float(([0.0, *_NUMBER.findall(text)])[-1])


def _windows_ms(call_ms: Mapping[str, float], meter: Meter) -> dict[str, float]:
    """How long each candidate's window is at least, by the latency of its call."""
    return {name: max(meter.window_ms, _FEWEST_CALLS * one) for name, one in call_ms.items()}


def _check_round(call_ms: Mapping[str, float], meter: Meter, step_ms: float, limit_s: float) -> float:
    """Return the seconds that one window each takes, with the counter's move before it and behind."""
    windows = _windows_ms(call_ms, meter)
    round_s = sum(window + 2 * max(step_ms, call_ms[name]) for name, window in windows.items()) / 1e3
    if round_s > limit_s:
        raise CannotMeter(
            f"{limit_s:.1f} s are too short for a window of {meter.window_ms:g} ms for each of "
            f"{len(windows)} blocks, which take {round_s:.1f} s; raise the time limit "
            f"{math.ceil(10 * round_s / limit_s) / 10:g}-fold"
        )
    return round_s


def _step_ms(meter: Meter, clock: Clock) -> float:
    """Time in ms from one move of the counter to the next."""
    _next_move(meter, _nothing, clock)
    start = clock()
    _next_move(meter, _nothing, clock)
    return (clock() - start) / 1e6


def _window_mj(run: Run, meter: Meter, window_ms: float, clock: Clock) -> float:
    """Energy of a call in one window."""
    before, _ = _next_move(meter, run, clock)
    start = clock()
    calls = 0
    while calls < _FEWEST_CALLS or (clock() - start) / 1e6 < window_ms:
        run()
        calls += 1
    after, more = _next_move(meter, run, clock)
    return (after - before) / (calls + more)


def _next_move(meter: Meter, run: Run, clock: Clock) -> tuple[float, int]:
    """Run until the counter moves; return where it is then, and the calls made."""
    start, begun, calls = clock(), meter.total_mj(), 0
    while True:
        run()
        calls += 1
        total = meter.total_mj()
        if total != begun:
            return total, calls
        if (clock() - start) / 1e6 > _PATIENCE * meter.window_ms:
            raise CannotMeter(f"the energy counter stands still ({meter.name})")


def _nothing() -> None:
    pass


def _whole(path: Path) -> int:
    """Read a count.

    Raises:
        CannotMeter: it cannot be read, or is no number.
    """
    try:
        return int(path.read_text(encoding="utf-8"))
    except PermissionError:
        raise CannotMeter(f"no right to read {path}; let root permit it: chmod a+r {path}") from None
    except (OSError, ValueError) as error:
        raise CannotMeter(f"{path} cannot be read: {error}") from None
