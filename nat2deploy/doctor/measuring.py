"""Whether latencies that a device measures now can be trusted."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from nat2deploy.clock_state import WorkingClock, clock_changes
from nat2deploy.cost.certificate import MAX_NOISE
from nat2deploy.doctor.finding import Finding
from nat2deploy.measure.device import Device
from nat2deploy.measure.groups import Group, Reference
from nat2deploy.measure.interleave import Progress
from nat2deploy.target import Fingerprint, Target

_QUIET = 0.01
_LEAST_MEMORY_BYTES = 1 << 29
_MANY_INTERRUPTIONS = 0.05
# No interval is that narrow: measuring goes on until its time is over.
_UNREACHABLE = 1e-6


def check_device(
    device: Device, target: Target, time_limit_s: float, progress: Progress
) -> Iterator[Finding]:
    """Yield what is found of a device, then of a measurement of ``time_limit_s`` seconds on it.

    Raises:
        UserError: the device cannot be reached, or cannot measure for the target.
    """
    machine = device.fingerprint()
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    yield Finding("device", "ok", f"{machine}, {machine.system}; {libraries}")
    memory_bytes = device.memory_bytes()
    if memory_bytes is not None:
        short = memory_bytes < _LEAST_MEMORY_BYTES
        remedy = "large networks may not fit; profile a smaller space" if short else ""
        yield Finding("memory", "warning" if short else "ok", f"{memory_bytes / 1e9:.1f} GB", remedy)
    yield from check_clock(machine)
    busy = device.warning()
    yield Finding("load", "warning" if busy else "ok", busy or "nothing else keeps it busy")
    yield from _measurement(device, target, time_limit_s, progress)


def check_clock(machine: Fingerprint) -> Iterator[Finding]:
    """Yield what is found of the processor's frequency and of what decides on it."""
    words = ", ".join(f"{name} {value}" for name, value in machine.words().items())
    slowed = machine.slowed()
    if slowed:
        yield Finding("clock", "failure", f"slowed now: {', '.join(slowed)}", "mend power supply or cooling")
    elif machine.governor not in ("performance", "unknown"):
        remedy = "sudo cpupower frequency-set -g performance, while it is profiled"
        yield Finding("clock", "warning", words, remedy)
    elif machine.was_slowed():
        remedy = "power supply or cooling do not last; mend them, and start it again"
        yield Finding("clock", "warning", words, remedy)
    else:
        yield Finding("clock", "ok", words)


def _measurement(
    device: Device, target: Target, time_limit_s: float, progress: Progress
) -> Iterator[Finding]:
    group = Group(
        name="noise",
        profile=secrets.token_hex(8),  # a device takes no results that an earlier check left there
        candidates={"block": Reference()},
        seed=0,
        precision=_UNREACHABLE,
        time_limit_s=time_limit_s,
    )
    try:
        found = device.measure(group, progress)
    finally:
        device.finish()
    noise = f"a block of {found.summaries['block'].median_ms:.3g} ms repeats within {found.noise_floor:.1%}"
    if found.noise_floor > MAX_NOISE:
        remedy = "stop other work, fix the clock, take a machine of its own; then ask again"
        words = f"{noise}; a table gets no certificate above {MAX_NOISE:.0%}"
        yield Finding("noise", "warning", words, remedy)
    elif found.noise_floor > _QUIET:
        yield Finding("noise", "ok", f"{noise}; below {_QUIET:.0%} tables are at their best")
    else:
        yield Finding("noise", "ok", noise)
    changes = clock_changes([WorkingClock.model_validate(clock) for clock in found.clocks])
    if changes:
        yield Finding("clock while measuring", "warning", "; ".join(changes), "fix its frequency, or cool it")
    interrupted = f"{found.interrupted_share:.1%} of the calls lost the processor to others"
    if found.interrupted_share > _MANY_INTERRUPTIONS:
        yield Finding("interruptions", "warning", interrupted, f"leave {target.threads} core(s) to it alone")
    else:
        yield Finding("interruptions", "ok", interrupted)
