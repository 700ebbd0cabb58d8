"""What is measured at once, by the memory of the device."""

import math

import pytest

from nat2deploy.cost.activations import peak_values
from nat2deploy.cost.memory import network_peak_values
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target

GIB = 1 << 30


def plan(batch=1, space="nano"):
    return ProfilePlan(load_space(space), Target(batch=batch))


def chunks(a_plan, memory_bytes):
    found = list(a_plan.block_groups("0" * 16, (), lambda: 0.0, memory_bytes))
    for chunk, group in found:
        assert len(group.candidates) == 1 + len(chunk)  # the call overhead
    return [chunk for chunk, _ in found], [group for _, group in found]


@pytest.mark.parametrize("space", ["nano", "ofa-mbv3"])
def test_with_batch_1_the_memory_of_a_small_board_holds_80_blocks_at_once(space):
    known, _ = chunks(plan(space=space), GIB)
    unknown, _ = chunks(plan(space=space), None)
    assert known == unknown
    assert {len(chunk) for chunk in known[:-1]} == {80}


def test_blocks_of_a_large_batch_take_half_of_the_memory_at_most():
    wide = plan(batch=64)
    parts, groups = chunks(wide, GIB)
    activations = [sum(4 * 64 * peak_values(s, keep_input=False) for s in chunk) for chunk in parts]
    assert max(activations) <= GIB / 4
    assert max(map(len, parts)) < 80
    assert [s for chunk in parts for s in chunk] == [s for chunk in chunks(wide, None)[0] for s in chunk]
    assert [group.name.split()[1] for group in groups[:2]] == ["1", str(len(parts[0]) + 1)]
    assert groups[-1].name.endswith(f" to {len(wide.signatures)} of {len(wide.signatures)}")
    assert math.fsum(g.time_limit_s for g in groups) >= 0.6 * wide.time_limit_s


def test_a_block_larger_than_the_memory_is_measured_alone():
    parts, _ = chunks(plan(batch=64), 1 << 10)
    assert {len(chunk) for chunk in parts} == {1}


def test_networks_of_a_large_batch_take_half_of_the_memory_at_most():
    wide = plan(batch=64)
    networks = wide.choose_networks(lambda network: math.fsum(s.macs for s in network))
    activations = 4 * 64 * sum(network_peak_values(network.plan) for network in networks)
    groups = wide.network_groups("0" * 16, networks, 2 * GIB, 0.0)
    assert activations / len(groups) <= GIB / 2
    alone = plan().network_groups("0" * 16, networks, 2 * GIB, 0.0)
    assert len(alone) < len(groups)
    assert len(alone) == len(plan().network_groups("0" * 16, networks, None, 0.0))
