import pytest
from pydantic import ValidationError

from nat2deploy.clock_state import ClockState, WorkingClock, clock_changes

QUIET = ClockState(
    governor="performance",
    driver="acpi-cpufreq",
    boost=True,
    min_mhz=800,
    max_mhz=3500,
    mhz=3450,
    throttled="0x0",
    throttle_count=7,
)


def changed(**change):
    return clock_changes([QUIET, QUIET.model_copy(update=change)])


def test_all_that_is_known_in_words():
    assert ClockState(governor="unknown").words() == {"governor": "unknown"}
    assert QUIET.model_copy(update={"power_mode": "MAXN (0)", "boost": False}).words() == {
        "governor": "performance",
        "frequency driver": "acpi-cpufreq",
        "boost": "off",
        "frequency limits": "800 to 3500 MHz",
        "power mode": "MAXN (0)",
        "frequency": "3450 MHz",
        "throttling": "none since the start",
    }
    bits = QUIET.model_copy(update={"throttled": "0x50005"}).words()["throttling"]
    assert bits == "now under-voltage, now throttled, earlier under-voltage, earlier throttled"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"mhz": 3350}, []),  # a boosting core is never still
        ({"mhz": 2000}, ["frequency between 2000 and 3450 MHz"]),
        ({"mhz": None}, []),
        ({"governor": "powersave"}, ["governor changed from performance to powersave"]),
        ({"boost": False}, ["boost changed from on to off"]),
        ({"max_mhz": 1500}, ["frequency limits changed from 800 to 3500 MHz to 800 to 1500 MHz"]),
        ({"power_mode": "7W (1)"}, ["power mode changed from unknown to 7W (1)"]),
        ({"throttle_count": 9}, ["slowed by its temperature 2 times"]),
        ({"throttled": "0x50000"}, ["slowed by the board: under-voltage, throttled"]),
        ({"throttled": "0x8"}, ["slowed by the board: soft temperature limit"]),
    ],
)
def test_what_changed_meanwhile(change, words):
    assert changed(**change) == words


def test_what_slowed_the_board_before_is_no_change_but_what_slows_it_all_the_time_is_told():
    before = QUIET.model_copy(update={"throttled": "0x50000"})
    assert clock_changes([before, before]) == []
    slow = QUIET.model_copy(update={"throttled": "0x40004"})
    assert clock_changes([slow, slow]) == ["slowed by the board: throttled"]


def test_a_change_back_is_two_changes_and_nothing_to_compare_is_none():
    other = QUIET.model_copy(update={"governor": "powersave"})
    assert len(clock_changes([QUIET, other, QUIET, other])) == 2
    assert clock_changes([]) == clock_changes([QUIET]) == []


@pytest.mark.parametrize("change", [{"mhz": -1}, {"throttled": "\x1b"}, {"throttle_count": -1}, {"volts": 1}])
def test_what_a_device_must_not_say(change):
    with pytest.raises(ValidationError):
        ClockState(governor="x", **change)


def test_a_gpus_clock_and_what_slowed_it():
    def at(mhz, *slowed):
        return WorkingClock(governor="performance", gpu_mhz=mhz, gpu_slowed=slowed)

    before = WorkingClock(governor="performance")
    assert clock_changes([before, at(1980), before, at(1950)]) == []
    assert clock_changes(
        [before, at(1980), before, at(1305, "its power limit"), at(1305, "its power limit")]
    ) == [
        "GPU's clock between 1305 and 1980 MHz",
        "GPU slowed by its power limit",
    ]
