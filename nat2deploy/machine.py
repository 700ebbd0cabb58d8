"""Facts of the machine that a process runs on; the agent on an edge device asks for them, too."""

from __future__ import annotations

import os
import platform
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
_MISSING = "not installed"
_CPU_INFO = Path("/proc/cpuinfo")
_BOARD = Path("/proc/device-tree/model")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def machine_facts() -> dict[str, Any]:
    """Return what ``target.Fingerprint`` holds, as plain JSON values."""
    cpu, flags = _cpu()
    return {
        "cpu": cpu,
        "flags": flags,
        "cores": os.cpu_count() or 1,
        "governor": _read(_GOVERNOR) or "unknown",
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": _libraries(),
    }


def memory_bytes() -> int | None:
    """Return the machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _cpu() -> tuple[str, list[str]]:
    model = ""
    implementer = ""
    flags: set[str] = set()
    parts: set[str] = set()
    for line in _read(_CPU_INFO).splitlines():
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
        board = _read(_BOARD).rstrip("\0")
        model = f"{board or platform.machine()} ({', '.join(sorted(parts))})"
    return model or platform.processor() or platform.machine(), [f for f in _TELLING_FLAGS if f in flags]


def _libraries() -> dict[str, str]:
    """Versions by name; an optional library that is not installed is left out."""
    found = {name: _version(name) for name in (*_LIBRARIES, *_OPTIONAL_LIBRARIES)}
    return {name: v for name, v in found.items() if v != _MISSING or name not in _OPTIONAL_LIBRARIES}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _MISSING
