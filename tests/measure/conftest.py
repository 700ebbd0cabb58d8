from collections.abc import Callable

import pytest
from simulated_machine import Machine

import nat2deploy.measure.plan as plan_module


class FakeTime:
    """A clock in nanoseconds that moves only when a workload says so."""

    def __init__(self):
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    @property
    def now_ms(self) -> float:
        return self.now_ns / 1e6

    def spend(self, ms: float) -> None:
        self.now_ns += round(ms * 1e6)

    def workload(self, latency_ms: float | Callable[[], float]) -> Callable[[], None]:
        """A callable that takes so long by this clock."""
        return lambda: self.spend(latency_ms() if callable(latency_ms) else latency_ms)


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(plan_module, "_BLOCKS_AT_ONCE", 10)
    return Machine()
