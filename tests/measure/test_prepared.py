"""What a group's measurement holds beside latencies: the clock before and after, and energy by a real counter file."""

import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest

from nat2deploy.measure import prepared
from nat2deploy.measure.energy import CannotMeter, find_meter
from nat2deploy.measure.prepared import prepare_and_measure

SPENT = SimpleNamespace(uj=0)


def spin(ms, uj=0):
    """Take some time and some energy."""
    end = time.perf_counter() + ms / 1e3
    while time.perf_counter() < end:
        pass
    SPENT.uj += uj


def measure(**options):
    blocks = (("a", 0.2, 2000), ("b", 0.4, 9000))
    candidates = {name: lambda rng, ms=ms, uj=uj: partial(spin, ms, uj) for name, ms, uj in blocks}
    return prepare_and_measure(
        "group",
        candidates,
        partial(spin, 0.1),
        seed=0,
        precision=0.5,
        time_limit_s=2.0,
        progress=options.pop("progress", lambda share, text: None),
        **options,
    )


@pytest.fixture
def counter(tmp_path):
    """A package whose counter a thread moves every ms or so, by what was spent and a little more."""
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("99999999\n")
    done = threading.Event()

    def show():
        # In place and of one width, so that nobody reads half of it.
        with (zone / "energy_uj").open("r+b", buffering=0) as stream:
            while not done.wait(0.001):
                SPENT.uj += 1
                stream.seek(0)
                stream.write(b"%08d\n" % (SPENT.uj % 100_000_000))

    (zone / "energy_uj").write_text("00000000\n")
    thread = threading.Thread(target=show)
    thread.start()
    yield tmp_path
    done.set()
    thread.join()


def test_energy_after_latencies_where_there_is_a_meter(monkeypatch, counter):
    monkeypatch.setattr(prepared, "find_meter", lambda device: find_meter(device, counter))
    told = []
    found = measure(energy_share=0.5, progress=lambda share, text: told.append((share, text)))
    assert found.energy_word == "RAPL, package-0, windows of 50 ms"
    # Generous, because the counter's thread has to wait for its turns.
    assert found.energy_mj == {"a": pytest.approx(2.0, rel=0.5), "b": pytest.approx(9.0, rel=0.5)}
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1) and told[-1][1] == "group: energy"


def test_without_a_meter_latencies_get_all_of_the_time_and_the_reason_is_kept(monkeypatch):
    limits = []
    original = prepared.measure_interleaved

    def spy(runs, *, time_limit_s, **options):
        limits.append(time_limit_s)
        return original(runs, time_limit_s=time_limit_s, **options)

    def none(device):
        raise CannotMeter("nothing here")

    monkeypatch.setattr(prepared, "measure_interleaved", spy)
    monkeypatch.setattr(prepared, "find_meter", none)
    found = measure(energy_share=0.5)
    assert (found.energy_mj, found.energy_word, limits) == (None, "nothing here", [2.0])
    assert measure().energy_word == ""


def test_too_short_a_limit_for_energy_is_a_reason_and_no_failure(monkeypatch, counter):
    monkeypatch.setattr(prepared, "find_meter", lambda device: find_meter(device, counter))
    limits = []
    original = prepared.measure_interleaved

    def spy(runs, *, time_limit_s, **options):
        limits.append(time_limit_s)
        return original(runs, time_limit_s=time_limit_s, **options)

    monkeypatch.setattr(prepared, "measure_interleaved", spy)
    found = measure(energy_share=0.01)
    assert found.energy_mj is None and "raise the time limit" in found.energy_word
    assert limits == [2.0]  # nothing is taken from the latencies
    assert found.summaries["a"].median_ms > 0


def test_the_clock_before_and_after(monkeypatch):
    states = iter([{"governor": "x", "mhz": 1.0}, {"governor": "x", "mhz": 2.0}])
    monkeypatch.setattr(prepared, "clock_facts", lambda: next(states))
    assert [clock["mhz"] for clock in measure().clocks] == [1.0, 2.0]
