"""What is said about a time limit that is too short."""

import re

import pytest
from simulated_machine import profile

from nat2deploy.measure import interleave
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.measure.time_needed import networks_remark
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target


def test_the_default_is_short_for_all_blocks_of_once_for_all_and_the_line_says_what_is_not():
    large = load_space("ofa-mbv3")
    line = ProfilePlan(large, Target()).blocks_remark()
    assert line.startswith("3282 blocks in 300 s: about 41 ms each, too little for 6 rounds; raise")
    assert "\n" not in line
    better = float(re.search(r"--time-limit\) to (\d+) s", line)[1])
    assert ProfilePlan(large, Target(), time_limit_s=better).blocks_remark() == ""
    fewer = int(re.search(r"--every-size (\d+)", line)[1])
    assert ProfilePlan(large, Target(), every_size=fewer).blocks_remark() == ""
    assert ProfilePlan(load_space("nano"), Target(), time_limit_s=60).blocks_remark() == ""


@pytest.mark.parametrize("ms", [0.5, 40.0])
def test_networks_get_six_rounds_in_the_time_that_the_line_names(fake_time, ms):
    count = 10
    line = networks_remark([ms] * count, 1.0, 0.4)
    wanted = float(re.search(r"need about (\d+) s", line)[1]) if ms > 1 else 0.6
    assert ("all the same" in line) is (ms > 1)
    assert networks_remark([ms] * count, 1.0, wanted + 1) == ""
    runs = {str(index): fake_time.workload(ms) for index in range(count)}
    found = interleave.measure_interleaved(
        runs,
        seed=0,
        time_limit_s=wanted + 1,
        precision=1e-9,
        reference=fake_time.workload(0.1),
        clock=fake_time,
        switches=lambda: 0,
    )
    assert min(summary.rounds for summary in found.summaries.values()) >= 6


def test_both_lines_come_with_a_profile(machine):
    said = []
    profile(machine, time_limit_s=0.1, remark=said.append)
    assert ["blocks in 0.1 s" in said[0], said[1].startswith("20 networks need about")] == [True, True]


def test_what_was_measured_before_gets_none(machine, monkeypatch):
    monkeypatch.setattr(type(machine), "measures_now", False)
    said = []
    profile(machine, time_limit_s=0.1, remark=said.append)
    assert said == []
