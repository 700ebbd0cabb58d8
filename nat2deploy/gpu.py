"""Facts of the GPUs that this process may use, from PyTorch and, where it is, the driver's `nvidia-smi`."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import metadata
from typing import Any

from nat2deploy.errors import UserError, first_line

_PACKAGES = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")
_TIMEOUT_S = 20
_BUSY_PERCENT = 10
# Old drivers know the reasons for a clock by another name.
_LOCKED_FIELDS = (
    "clocks_event_reasons.applications_clocks_setting",
    "clocks_throttle_reasons.applications_clocks_setting",
)
_SLOWED_FIELDS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# NVML's bits of these, without idleness and what somebody has set.
_SLOWED_BITS = {
    0x04: "its power limit",
    0x08: "its hardware",
    0x20: "its temperature",
    0x40: "its temperature",
    0x80: "a power brake",
}


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that PyTorch sees, in the order of ``cuda:N``.

    Raises:
        UserError: PyTorch cannot be imported.
    """
    torch = _torch()
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def check_visible(index: int) -> None:
    """Check that PyTorch sees the GPU ``cuda:index``.

    Raises:
        UserError: it does not.
    """
    names = visible_gpus()
    if not names:
        raise UserError(
            f"device cuda:{index}: PyTorch {_torch().__version__} sees no GPU here; "
            "install NVIDIA's driver and a PyTorch with CUDA, or choose cpu"
        )
    if index >= len(names):
        last = f"cuda:{len(names) - 1}"
        raise UserError(f"device cuda:{index}: the last GPU that PyTorch sees is {last}; choose one up to it")


def gpu_facts(index: int) -> dict[str, Any]:
    """Return what ``target.Gpu`` holds of the GPU ``cuda:index``, as plain JSON values.

    Raises:
        UserError: PyTorch does not see it.
    """
    check_visible(index)
    seen = _torch().cuda.get_device_properties(index)
    facts = {
        "name": seen.name,
        "compute_capability": f"{seen.major}.{seen.minor}",
        "memory_bytes": seen.total_memory,
    }
    clock_khz = getattr(seen, "clock_rate", 0)
    if clock_khz:
        facts["max_clock_mhz"] = clock_khz // 1000
    return {**facts, **driver_facts(f"GPU-{seen.uuid}")}


def gpu_libraries() -> dict[str, str]:
    """Return the versions of what computes on GPUs, by name; what is not installed is left out."""
    torch = _torch()
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    found.update((name, _version(name)) for name in _PACKAGES)
    return {name: str(version) for name, version in found.items() if version}


def gpu_memory_bytes(index: int) -> int:
    """Return the memory of the GPU ``cuda:index``.

    Raises:
        UserError: PyTorch does not see it.
    """
    check_visible(index)
    return int(_torch().cuda.get_device_properties(index).total_memory)


def busy_warning(index: int) -> str | None:
    """Return a line of warning when something else uses the GPU ``cuda:index``, None also if nobody can tell.

    Ask before a measurement: the measurement itself is load.
    """
    check_visible(index)
    found = _query(f"GPU-{_torch().cuda.get_device_properties(index).uuid}", "utilization.gpu")
    if found is None or not found[0].isdigit() or int(found[0]) < _BUSY_PERCENT:
        return None
    return (
        f"cuda:{index} is busy: in use {found[0]} % of the time; stop other work, or expect wider intervals"
    )


def driver_facts(gpu: str) -> dict[str, Any]:
    """Return what `nvidia-smi` says of a GPU, named as it names them; what it does not say is left out."""
    found = _query(gpu, "driver_version", "clocks.sm", "clocks.max.sm")
    if found is None:
        return {}
    driver, clock, most = found
    facts: dict[str, Any] = {"driver": driver}
    facts.update(
        (name, int(value))
        for name, value in (("clock_mhz", clock), ("max_clock_mhz", most))
        if value.isdigit()
    )
    locked = next(filter(None, (_query(gpu, field) for field in _LOCKED_FIELDS)), None)
    if locked is not None and locked[0] in ("Active", "Not Active"):
        facts["clocks_locked"] = locked[0] == "Active"
    return facts


def clock_at_work(index: int) -> dict[str, Any]:
    """Return what ``clock_state.WorkingClock`` holds of the GPU ``cuda:index``, as plain JSON values.

    Ask while it is at work: an idle one lowers its clock. What the driver does not say is left out.

    Raises:
        UserError: PyTorch does not see it.
    """
    check_visible(index)
    gpu = f"GPU-{_torch().cuda.get_device_properties(index).uuid}"
    clock = _query(gpu, "clocks.sm")
    found: dict[str, Any] = {}
    if clock is not None and clock[0].isdigit() and int(clock[0]) > 0:
        found["gpu_mhz"] = int(clock[0])
    active = next(filter(None, (_query(gpu, field) for field in _SLOWED_FIELDS)), None)
    if active is not None and re.fullmatch("0x[0-9a-fA-F]+", active[0]):
        bits = int(active[0], 16)
        found["gpu_slowed"] = list(dict.fromkeys(name for bit, name in _SLOWED_BITS.items() if bits & bit))
    return found


def _query(gpu: str, *fields: str) -> list[str] | None:
    """Ask `nvidia-smi`; None where there is none, or where it does not know the GPU or a field."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--id={gpu}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return values if len(values) == len(fields) else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _torch() -> Any:
    try:
        import torch
    except (ImportError, OSError) as error:
        raise UserError(f"PyTorch, which finds GPUs, cannot be imported: {first_line(error)}") from error
    return torch
