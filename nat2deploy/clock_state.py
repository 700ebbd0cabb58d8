"""What sets the frequency that a processor runs at, in words, and whether it changed meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Megahertz = Annotated[float, Field(gt=0, lt=1e6)]

# Frequencies within this share of each other are one frequency: a boosting core is never still.
_STEADY = 0.05
# The firmware's bits of `vcgencmd get_throttled`: now, and sixteen further since the board was started.
_THROTTLE_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_SINCE_START = 16


class ClockState(BaseModel):
    """A core's frequency and what decides on it, as far as the system says (None where it does not).

    ``driver`` is cpufreq's, ``boost`` whether the core may go above its nominal frequency. ``min_mhz`` and
    ``max_mhz`` are the limits that the governor moves in, ``mhz`` is the frequency at that moment.
    ``power_mode`` is a Jetson's, ``throttled`` a Raspberry Pi's bits as hexadecimal, ``throttle_count`` how
    often an x86 core was slowed by its temperature since the machine was started.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    governor: str
    driver: str | None = None
    boost: bool | None = None
    min_mhz: Megahertz | None = None
    max_mhz: Megahertz | None = None
    mhz: Megahertz | None = None
    power_mode: str | None = None
    throttled: Annotated[str, Field(pattern="^0x[0-9a-f]{1,8}$")] | None = None
    throttle_count: Annotated[int, Field(ge=0)] | None = None

    def settings(self) -> dict[str, str]:
        """Say what somebody has set, name to value; without what is not known."""
        found = {"governor": self.governor}
        if self.driver is not None:
            found["frequency driver"] = self.driver
        if self.boost is not None:
            found["boost"] = "on" if self.boost else "off"
        if self.min_mhz is not None and self.max_mhz is not None:
            found["frequency limits"] = f"{self.min_mhz:.0f} to {self.max_mhz:.0f} MHz"
        if self.power_mode is not None:
            found["power mode"] = self.power_mode
        return found

    def words(self) -> dict[str, str]:
        """Say all that is known, name to value."""
        found = self.settings()
        if self.mhz is not None:
            found["frequency"] = f"{self.mhz:.0f} MHz"
        if self.throttled is not None:
            parts = [f"now {name}" for name in self.slowed()] + [f"earlier {n}" for n in self.was_slowed()]
            found["throttling"] = ", ".join(parts) or "none since the start"
        return found

    def slowed(self) -> list[str]:
        """Name what slows the board at this moment."""
        return self._bits(0)

    def was_slowed(self) -> list[str]:
        """Name what has slowed the board since it was started."""
        return self._bits(_SINCE_START)

    def _bits(self, first: int) -> list[str]:
        bits = int(self.throttled or "0x0", 16) >> first
        return [name for bit, name in enumerate(_THROTTLE_BITS) if bits >> bit & 1]


class WorkingClock(ClockState):
    """The same right after a measurement, with the GPU's where that was measured on.

    ``gpu_mhz`` is its multiprocessors' clock, ``gpu_slowed`` what its driver says keeps it from a higher one,
    but for what somebody has set.
    """

    gpu_mhz: Megahertz | None = None
    gpu_slowed: tuple[str, ...] = ()


def clock_changes(states: Sequence[ClockState]) -> list[str]:
    """Say what changed from one state to the next, or slowed the processor; nothing where all stayed.

    Args:
        states: in the order of time, each taken while the processor was at work.
    """
    found: dict[str, None] = {}
    for before, after in pairwise(states):
        old, new = before.settings(), after.settings()
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                found[f"{name} changed from {old.get(name, 'unknown')} to {new.get(name, 'unknown')}"] = None
    frequencies = [state.mhz for state in states if state.mhz is not None]
    if frequencies and max(frequencies) - min(frequencies) > _STEADY * max(frequencies):
        found[f"frequency between {min(frequencies):.0f} and {max(frequencies):.0f} MHz"] = None
    counts = [state.throttle_count for state in states if state.throttle_count is not None]
    if counts and counts[-1] > counts[0]:
        found[f"slowed by its temperature {counts[-1] - counts[0]} times"] = None
    known = [state for state in states if state.throttled is not None]
    if known:
        slowed = [name for state in known for name in state.slowed()]
        slowed += [name for name in known[-1].was_slowed() if name not in known[0].was_slowed()]
        if slowed:
            found[f"slowed by the board: {', '.join(dict.fromkeys(slowed))}"] = None
    gpus = [state for state in states if isinstance(state, WorkingClock)]
    clocks = [state.gpu_mhz for state in gpus if state.gpu_mhz is not None]
    if clocks and max(clocks) - min(clocks) > _STEADY * max(clocks):
        found[f"GPU's clock between {min(clocks):.0f} and {max(clocks):.0f} MHz"] = None
    reasons = dict.fromkeys(reason for state in gpus for reason in state.gpu_slowed)
    if reasons:
        found[f"GPU slowed by {', '.join(reasons)}"] = None
    return list(found)
