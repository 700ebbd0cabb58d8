"""Two tables side by side."""

import pytest
from cost_tables import make_measured_table, make_table

from nat2deploy.cost.difference import compare_tables
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import load_space


@pytest.fixture(scope="module")
def whole():
    return load_space("nano")


def test_a_table_and_itself(nano, table):
    found = compare_tables(table, table, nano)
    assert found.context == []
    assert (found.block_ratio, found.network_ratio, found.network_low, found.network_high) == (1, 1, 1, 1)
    assert found.spearman == pytest.approx(1)
    assert len(found.blocks) == len(table.entries) and found.only_first == found.only_second == 0


def test_a_slower_machine_and_one_odd_block(nano):
    first, second = make_measured_table(nano), make_measured_table(nano, seed=3, slower=1.25)
    odd = next(key for key in second.entries if key.startswith("mbconv"))
    entries = {**second.entries, odd: second.entries[odd].scaled(2)}
    machine = second.fingerprint.model_copy(update={"cpu": "slow", "libraries": {"onnxruntime": "2"}})
    second = second.model_copy(update={"entries": entries, "fingerprint": machine})
    found = compare_tables(first, second, nano)
    assert found.block_ratio == pytest.approx(1.25)
    assert found.blocks[0].key == odd and found.blocks[0].ratio == pytest.approx(2.5)
    assert found.network_ratio == pytest.approx(1.25, rel=0.02)
    assert found.network_low < found.network_ratio <= found.network_high
    assert ("cpu", "test", "slow") in found.context
    assert ("onnxruntime version", "unknown", "2") in found.context


def test_another_clock_and_energy_are_said_in_words(table, nano):
    clock = {"boost": False, "driver": "acpi-cpufreq", "mhz": 2000.0, "min_mhz": 800.0, "max_mhz": 2000.0}
    entries = {key: entry.model_copy(update={"energy_mj": 1.5}) for key, entry in table.entries.items()}
    other = table.model_copy(
        update={
            "fingerprint": table.fingerprint.model_copy(update=clock),
            "clock_changes": ("slowed by its temperature 3 times",),
            "energy": "RAPL, package-0",
            "entries": entries,
        }
    )
    blocks = len(entries)
    assert set(compare_tables(table, other, nano).context) == {
        (
            "energy",
            "not measured: the table is older than that",
            f"{blocks} of {blocks} blocks: RAPL, package-0",
        ),
        ("frequency driver", "unknown", "acpi-cpufreq"),
        ("boost", "unknown", "off"),
        ("frequency limits", "unknown", "800 to 2000 MHz"),
        ("frequency", "unknown", "2000 MHz"),
        ("clock changes", "none", "slowed by its temperature 3 times"),
    }


def test_only_what_both_hold_is_compared(whole):
    first = make_table(whole.restrict(resolutions=(28, 32)))
    second = make_table(whole.restrict(resolutions=(32, 40)))
    found = compare_tables(first, second, whole)
    assert found.only_first > 0 and found.only_second > 0
    assert len(found.blocks) + found.only_first == len(first.entries)
    assert ("resolutions", "28, 32", "32, 40") in found.context
    third = make_table(whole.restrict(resolutions=(64,)))
    with pytest.raises(UserError, match="nothing to compare"):
        compare_tables(first, third, whole)
    with pytest.raises(UserError, match="of space 'nano'"):
        compare_tables(first, second, load_space("nano-ee-d"))
