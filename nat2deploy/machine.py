"""Facts of the machine that a process runs on; the agent on an edge device asks for them, too."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

# The instruction sets that change which kernels an engine picks.
_TELLING_FLAGS = (  # noqa: SIM905
    "sse4_2 avx avx2 fma avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 amx_int8 amx_bf16 "
    "asimd asimddp asimdhp bf16 i8mm sve sve2"
).split()
_LIBRARIES = ("onnxruntime", "torch", "numpy")
_OPTIONAL_LIBRARIES = ("openvino",)
_ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_MISSING = "not installed"
_ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"
_TURBO_OFF = f"{_CPUS}/intel_pstate/no_turbo"
_BOOST = f"{_CPUS}/cpufreq/boost"
# What Jetson's nvpmodel leaves behind: the mode's number, and beside it the modes' names.
_POWER_MODE, _POWER_MODES = "var/lib/nvpmodel/status", "etc/nvpmodel.conf"
# A control group's, of version 2 and of version 1, which says so where there is none by a huge number.
_MEMORY_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNLIMITED = 1 << 60
# These move by themselves, with load and temperature; all other facts stay until somebody changes them.
_MOVING = ("mhz", "min_mhz", "max_mhz", "throttled", "throttle_count")


def machine_facts(root: Path = _ROOT) -> dict[str, Any]:
    """Return what ``target.Fingerprint`` holds, as plain JSON values.

    Args:
        root: where the system's files begin.
    """
    cpu, flags = _cpu(root)
    return {
        "cpu": cpu,
        "flags": flags,
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": _libraries(),
        **clock_facts(root),
    }


def clock_facts(root: Path = _ROOT) -> dict[str, Any]:
    """Return what ``clock_state.ClockState`` holds, of the first core that this thread may run on.

    Args:
        root: where the system's files begin.
    """
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cpu = root / _CPUS / f"cpu{core}"
    scaling = cpu / "cpufreq"
    turbo_off, boost = read_fact(root / _TURBO_OFF), read_fact(root / _BOOST) or read_fact(scaling / "boost")
    return {
        "governor": read_fact(scaling / "scaling_governor") or "unknown",
        "driver": read_fact(scaling / "scaling_driver") or None,
        "boost": turbo_off == "0" if turbo_off else boost == "1" if boost else None,
        "min_mhz": _mhz(read_fact(scaling / "scaling_min_freq")),
        "max_mhz": _mhz(read_fact(scaling / "scaling_max_freq")),
        "mhz": _mhz(read_fact(scaling / "scaling_cur_freq")) or _cpu_info_mhz(root, core),
        "power_mode": _power_mode(root),
        "throttled": _throttled(),
        "throttle_count": _number(read_fact(cpu / "thermal_throttle" / "core_throttle_count")),
    }


def lasting_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts without those that load and temperature move: an interrupted job goes on by them."""
    return {name: value for name, value in facts.items() if name not in _MOVING}


def onnxruntime_version() -> str:
    """Return the version of the ONNX Runtime that `import onnxruntime` gives, empty where there is none.

    Its forms for CPUs and GPUs are packages of several names with one folder: whichever came last is there.
    """
    try:
        import onnxruntime

        return str(onnxruntime.__version__)
    except (ImportError, OSError, AttributeError):
        found = (_version(name) for name in _ONNXRUNTIMES)
        return next((one for one in found if one != _MISSING), "")


def memory_bytes(root: Path = _ROOT) -> int | None:
    """Return the machine's memory, or a container's limit below it; None where the system does not say.

    Args:
        root: where the system's files begin.
    """
    limits = [_number(read_fact(root / path)) for path in _MEMORY_LIMITS]
    known = [limit for limit in limits if limit is not None and 0 < limit < _UNLIMITED]
    with suppress(AttributeError, OSError, ValueError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(known, default=None)


def read_fact(path: Path) -> str:
    """Return a system file's text without white space at its ends; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cpu(root: Path) -> tuple[str, list[str]]:
    model = ""
    implementer = ""
    flags: set[str] = set()
    parts: set[str] = set()
    for line in read_fact(root / "proc/cpuinfo").splitlines():
        key, _, value = (word.strip() for word in line.partition(":"))
        if key == "model name" and not model:
            model = value
        elif key in ("flags", "Features") and not flags:
            flags = set(value.split())
        elif key == "CPU implementer":
            implementer = value
        elif key == "CPU part":
            parts.add(f"{implementer}/{value}")
    if not model and parts:
        # 64-bit ARM kernels give numbers in place of a name; without them all boards would look alike.
        board = read_fact(root / "proc/device-tree/model").rstrip("\0")
        model = f"{board or platform.machine()} ({', '.join(sorted(parts))})"
    model = model or _apple_brand()
    return model or platform.processor() or platform.machine(), [f for f in _TELLING_FLAGS if f in flags]


def _apple_brand() -> str:
    """macOS's name of the processor, such as ``Apple M3 Pro``; Python knows it as ``arm`` only."""
    if platform.system() != "Darwin":
        return ""
    # Not by PATH alone: a service's may lack it.
    program = shutil.which("sysctl") or "/usr/sbin/sysctl"
    words = [program, "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    said = done.stdout.decode(errors="replace").strip()
    return said if done.returncode == 0 and said.isprintable() else ""


def _cpu_info_mhz(root: Path, core: int) -> float | None:
    """A core's frequency in MHz where /proc/cpuinfo has it, as on x86."""
    processor = ""
    for line in read_fact(root / "proc/cpuinfo").splitlines():
        key, _, value = (word.strip() for word in line.partition(":"))
        if key == "processor":
            processor = value
        elif key == "cpu MHz" and processor == str(core):
            return _mhz(value, 1.0)
    return None


def _power_mode(root: Path) -> str | None:
    """Jetson's power mode, such as ``MAXN (0)``."""
    found = re.search(r"pmode:(\d+)", read_fact(root / _POWER_MODE))
    if found is None:
        return None
    number = int(found[1])
    name = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+)", read_fact(root / _POWER_MODES))
    return f"{name[1]} ({number})" if name else str(number)


def _throttled() -> str | None:
    """The Raspberry Pi's throttle bits, such as ``0x50000``."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "get_throttled"], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"throttled=(0x[0-9a-fA-F]{1,8})\b", done.stdout.decode(errors="replace"))
    return found[1].lower() if found else None


def _mhz(text: str, unit: float = 1e-3) -> float | None:
    """A frequency in MHz, by default from the kHz of cpufreq."""
    try:
        value = round(float(text) * unit, 3)
    except ValueError:
        return None
    return value if 0 < value < 1e6 else None


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _libraries() -> dict[str, str]:
    """Versions by name; an optional library that is not installed is left out."""
    found = {name: _version(name) for name in (*_LIBRARIES, *_OPTIONAL_LIBRARIES)}
    found["onnxruntime"] = onnxruntime_version() or _MISSING
    return {name: v for name, v in found.items() if v != _MISSING or name not in _OPTIONAL_LIBRARIES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _MISSING
