"""The whole way on a simulated machine: blocks and networks are compiled for real, latencies made up."""

import json
from dataclasses import replace

import numpy as np
import pytest
from simulated_machine import blocks_of, profile, tiny_space

import nat2deploy.measure.plan as plan_module
from nat2deploy.cost.doubts import doubts
from nat2deploy.cost.energy import energy_words
from nat2deploy.cost.fitting import certify_networks
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.network_choice import Network
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.measure import prepared
from nat2deploy.measure.device import LocalDevice
from nat2deploy.measure.groups import Group, Overhead
from nat2deploy.measure.interleave import measure_interleaved
from nat2deploy.measure.plan import CLASS_LADDER, ProfilePlan
from nat2deploy.measure.profiler import profile_space
from nat2deploy.measure.validation import validate_table
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import every_signature, plan_network
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Gpu, Target


def test_every_block_once_and_a_certificate(machine, tmp_path):
    table = profile(machine)
    space = tiny_space()
    assert list(table.entries) == [s.key for s in every_signature(space, CLASS_LADDER)]
    assert sorted(blocks_of(machine)) == sorted(table.entries)
    assert table.calibration.networks == 12
    assert table.certificate.networks == 8
    assert table.certificate.mape < 0.01
    assert table.certificate.within_5pct == 1
    assert table.noise_floor == pytest.approx(0.002)
    assert table.elapsed_s == pytest.approx(len(machine.sessions))
    save_table(table, tmp_path / "table.json")
    assert load_table(tmp_path / "table.json") == table


def test_energy_is_in_the_table_or_why_not(machine, tmp_path):
    table = profile(machine)
    assert table.energy == "no meter here" and {e.energy_mj for e in table.entries.values()} == {None}
    assert energy_words(table) == "not measured: no meter here"
    machine.metered = True
    table = profile(machine)
    assert energy_words(table) == f"{len(table.entries)} of {len(table.entries)} blocks: a meter"
    for entry in table.entries.values():
        assert entry.energy_mj == pytest.approx(2 * entry.median_ms, rel=0.1)
    save_table(table, tmp_path / "table.json")
    assert load_table(tmp_path / "table.json") == table


def test_a_machine_that_stays_as_it_is_has_no_changes(machine):
    machine.clocks = ({"governor": "performance", "mhz": 3000.0},) * 2
    assert profile(machine).clock_changes == ()


def test_the_table_predicts_networks_that_were_never_measured(machine):
    space, table = tiny_space(), profile(machine)
    model = CostModel(space, 37, table)
    for architecture in random_architectures(IntegerEncoding(space), np.random.default_rng(9), 10):
        plan = plan_network(space, architecture, 37)
        true_ms = machine.network_ms(Network(architecture, 37, plan))
        assert model.costs(architecture).latency_ms == pytest.approx(true_ms, rel=0.02)


def test_the_gpu_in_a_table_is_the_one_at_work(machine, monkeypatch):
    idle = Gpu(name="NVIDIA Some", compute_capability="8.9", memory_bytes=1 << 34, clock_mhz=345)
    here = machine.fingerprint().model_copy(update={"gpu": idle})
    monkeypatch.setattr(machine, "fingerprint", lambda: here)
    before = {"governor": "performance", "mhz": 3000.0}
    machine.clocks = (before, {**before, "gpu_mhz": 1980, "gpu_slowed": ["its power limit"]})
    table = profile(machine)
    assert table.fingerprint.gpu == idle.model_copy(update={"clock_mhz": 1980})
    assert table.fingerprint.governor == "performance"
    assert table.clock_changes == ("GPU slowed by its power limit",)
    assert "gpu_mhz" not in table.fingerprint.model_dump()


def test_chunks_at_another_clock_frequency_are_made_comparable(machine, monkeypatch):
    plain = profile(machine, seed=3)
    original, calls = machine._measure, []

    def drifting(group, progress):
        calls.append(1)
        machine.speed = 1.3 if len(calls) == 2 else 1.0
        return original(group, progress)

    monkeypatch.setattr(machine, "_measure", drifting)
    drifted = profile(machine, seed=3)
    for key, entry in plain.entries.items():
        assert drifted.entries[key].median_ms == pytest.approx(entry.median_ms, rel=0.03)


def test_the_table_says_how_much_slower_the_machine_was_for_the_networks(machine, monkeypatch):
    assert profile(machine).network_slowdown == 1
    original = machine._measure

    def drifting(group, progress):
        machine.speed = 1.2 if group.name.startswith("networks") else 0.8
        return original(group, progress)

    monkeypatch.setattr(machine, "_measure", drifting)
    assert profile(machine).network_slowdown == pytest.approx(1.5)


def test_a_noisy_machine_gets_a_table_without_certificate(machine):
    machine.noise = 0.04
    words, remarks = [], []
    table = profile(machine, progress=lambda share, text: words.append((share, text)), remark=remarks.append)
    assert table.certificate is None
    assert table.calibration is not None
    assert words[-1] == (1.0, f"{len(table.entries)} blocks and 20 networks measured")
    (why_not,) = remarks
    assert "no certificate: the machine's noise is 4.0%" in why_not


def test_a_busy_machine_is_remarked_on(machine):
    machine.busy = "the machine is busy"
    remarks = []
    profile(machine, remark=remarks.append)
    assert remarks == ["the machine is busy"]


def test_what_did_not_settle_or_drifted_is_in_the_table(machine, tmp_path):
    assert doubts(profile(machine)) == []
    first = next(iter(profile(machine).entries))
    machine.unsettled = (first,)
    table = profile(machine)
    assert [key for key, entry in table.entries.items() if not entry.converged] == [first]
    (words,) = doubts(table)
    assert words.startswith(f"1 of {len(table.entries)} blocks did not settle within the time")
    machine.rng = np.random.default_rng(0)
    profile(machine)
    machine.unsettled, machine.drift = machine.sessions[-1][0][:3], 0.386
    machine.rng = np.random.default_rng(0)  # the same latencies give the same networks
    table = profile(machine)
    save_table(table, tmp_path / "table.json")
    assert load_table(tmp_path / "table.json") == table and table.drift == 0.386
    settled, drifted = doubts(table)
    assert settled.startswith("3 of 20 networks did not settle within the time")
    assert "up to 38.6%" in drifted


def test_progress_rises_to_one(machine):
    shares = []
    profile(machine, progress=lambda share, text: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_measuring_keeps_to_the_time_given(machine):
    profile(machine, time_limit_s=30.0)
    blocks = [limit for names, limit in machine.sessions if "-h" in names[-1]]
    networks = [limit for names, limit in machine.sessions if "-h" not in names[-1]]
    assert blocks[0] == pytest.approx(18 / len(blocks), rel=0.5)
    assert sum(networks) == pytest.approx(30 - len(blocks))  # a session of this machine takes 1 s


def test_networks_get_their_share_even_if_the_blocks_took_all_the_time(machine):
    profile(machine, time_limit_s=1.0)
    networks = [limit for names, limit in machine.sessions if "-h" not in names[-1]]
    assert sum(networks) == pytest.approx(0.4)


def test_networks_are_measured_in_parts_where_memory_is_small(machine, monkeypatch):
    machine.noise = 0.0  # the same latencies give the same networks
    together = profile(machine)
    (names,) = [names for names, _ in machine.sessions if "-h" not in names[-1]]
    machine.sessions = []
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1 << 20)
    table = profile(machine)
    parts = [names for names, _ in machine.sessions if "-h" not in names[-1]]
    assert 1 < len(parts) <= len(names)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert table.certificate.networks == together.certificate.networks
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1 << 10)
    machine.sessions = []
    profile(machine)
    assert [len(names) for names, _ in machine.sessions if "-h" not in names[-1]] == [1] * len(names)


@pytest.mark.parametrize("counts", [{"calibration_networks": 3}, {"held_out_networks": 0}])
def test_too_few_networks_asked_for(machine, counts):
    with pytest.raises(UserError, match="4 networks each or more"):
        profile(machine, **counts)
    assert machine.sessions == []


def test_a_space_with_too_few_networks(machine):
    space = tiny_space().model_copy(update={"kernels": (3,), "expansions": (2.0,), "depths": (1,)})
    with pytest.raises(
        UserError, match="'tiny' has only 1 networks to measure, not 74; a table needs 8: give"
    ):
        profile_space(ProfilePlan(space, Target(), time_limit_s=30.0), machine)
    space = tiny_space().model_copy(update={"depths": (1,)})
    with pytest.raises(UserError, match="'tiny' has only 16 networks to measure, not 74; ask for fewer"):
        profile_space(ProfilePlan(space, Target(), time_limit_s=30.0), machine)
    assert machine.sessions == []  # blocks are not measured in vain


def test_the_table_keeps_the_networks_that_it_was_fitted_to_and_tried_on(machine):
    table = profile(machine)
    roles = [network.role for network in table.networks]
    assert roles == ["calibration"] * table.calibration.networks + ["held-out"] * table.certificate.networks
    held_out = [network for network in table.networks if network.role == "held-out"]
    again = certify_networks(table, tiny_space(), held_out, noise=table.certificate.noise)
    assert again == table.certificate
    assert table.certificate.p95_mape < 0.05 and table.certificate.p99_mape < 0.05


def test_sizes_in_between_are_not_measured_but_predicted(machine):
    space = tiny_space().model_copy(update={"resolutions": (28, 32, 40, 48, 56, 64)})
    plan = ProfilePlan(
        space, Target(), time_limit_s=30.0, calibration_networks=10, held_out_networks=10, every_size=2
    )
    table = profile_space(plan, machine)
    whole = list(every_signature(space, plan_module.CLASS_LADDER))
    assert len(table.entries) < 0.75 * len(whole)
    assert table.resolutions == space.resolutions
    assert table.certificate.mape < 0.02
    assert CostModel(space, 10, table).costs(space.largest(48)).latency_ms > 0


def test_validation_measures_fresh_networks(machine):
    table = profile(machine)
    machine.sessions = []
    certificate, measured = validate_table(table, tiny_space(), networks=10, device=machine)
    assert certificate.networks == len(measured) == 10
    fitted = {json.dumps(n.architecture) for n in table.networks if n.role == "calibration"}
    assert fitted.isdisjoint(json.dumps(network.architecture) for network in measured)
    assert certificate.mape < 0.01
    assert blocks_of(machine) == []
    machine.speed = 1.25
    slower, _ = validate_table(table, tiny_space(), networks=10, device=machine)
    assert slower.bias == pytest.approx(-0.2, abs=0.02)
    assert slower.within_10pct == 0


def test_validation_says_what_it_could_suffer_from_and_the_table_not(machine):
    table = profile(machine)
    words = []
    validate_table(table, tiny_space(), networks=10, device=machine, remark=words.append)
    assert words == []
    older = table.fingerprint.libraries | {"onnxruntime": "1.0.0"}
    there = table.fingerprint.model_copy(update={"libraries": older})
    machine.busy = "the machine is busy"
    machine.clocks = ({"governor": "performance", "mhz": 3000.0}, {"governor": "powersave", "mhz": 1500.0})
    table = table.model_copy(update={"fingerprint": there})
    validate_table(table, tiny_space(), networks=10, device=machine, remark=words.append)
    assert words[0] == "the machine is busy"
    assert words[1].startswith("the table was measured with other versions: onnxruntime 1.0.0, now ")
    assert "while the networks were measured: governor changed from performance to powersave" in words


def test_how_busy_the_machine_is_is_not_asked_where_it_was_asked_before(machine):
    machine.busy = "the machine is busy"
    words = []
    profile(machine, remark=words.append)
    assert machine.busy in words
    plan = ProfilePlan(tiny_space(), Target(), calibration_networks=4, held_out_networks=4, time_limit_s=30.0)
    words.clear()
    profile_space(plan, machine, remark=words.append, asks_load=False)
    assert machine.busy not in words


def test_the_ends_of_the_space_are_not_fresh_where_the_table_is_calibrated_on_them(machine):
    space = tiny_space()
    ends = [space.smallest(), space.largest()]
    table = profile(machine)
    example = table.networks[0]
    seen = tuple(example.model_copy(update={"architecture": end.to_json()}) for end in ends)
    table = table.model_copy(update={"networks": (*table.networks, *seen)})
    _, measured = validate_table(table, space, networks=20, device=machine)
    assert len(measured) == 20
    assert all(network.architecture not in [end.to_json() for end in ends] for network in measured)


def test_a_validation_that_fails_leaves_nothing_on_the_device(machine):
    table = profile(machine)
    finished, machine.fail_after = len(machine.finished), len(machine.sessions)
    with pytest.raises(KeyboardInterrupt):
        validate_table(table, tiny_space(), networks=10, device=machine)
    assert len(machine.finished) == finished + 1


def test_validation_needs_networks_that_the_table_never_saw(machine):
    space = tiny_space().model_copy(update={"expansions": (2.0,)})
    plan = ProfilePlan(space, Target(), calibration_networks=30, held_out_networks=4, time_limit_s=30.0)
    table = profile_space(plan, machine)
    fitted = tuple(n.model_copy(update={"role": "calibration"}) for n in table.networks)
    table = table.model_copy(update={"networks": fitted})
    with pytest.raises(UserError, match="has only 2 networks that the table is not calibrated on"):
        validate_table(table, space, networks=4, device=machine)


def test_validation_refuses_another_machine_or_space(machine):
    table = profile(machine)
    other = table.fingerprint.model_copy(update={"cpu": "Another CPU"})
    with pytest.raises(UserError, match="measured on Another CPU"):
        validate_table(table.model_copy(update={"fingerprint": other}), tiny_space())
    with pytest.raises(UserError, match=r"of space 'tiny' .* not of 'nano'"):
        validate_table(table, load_space("nano"))


def test_for_real_on_a_tiny_space():
    space = tiny_space().model_copy(update={"expansions": (2.0,)})
    plan = ProfilePlan(
        space, Target(), precision=0.5, time_limit_s=0.6, calibration_networks=4, held_out_networks=4
    )
    table = profile_space(plan, LocalDevice(Target()))
    assert len(table.entries) == len(list(every_signature(space, CLASS_LADDER)))
    model = CostModel(space, 10, table)
    assert 0 < model.costs(space.smallest()).latency_ms < model.costs(space.largest()).latency_ms < 50
    assert table.calibration.call_overhead_ms < 0.5


def test_every_group_is_warmed_up_as_long_as_the_plan_says(machine, monkeypatch):
    told = []
    original = machine._measure
    monkeypatch.setattr(
        machine, "_measure", lambda group, progress: told.append(group.warmup_ms) or original(group, progress)
    )
    profile(machine)
    assert len(told) > 1 and set(told) == {0.0}
    told.clear()
    table = profile(machine, warmup_ms=20.0)
    assert set(told) == {20.0} and table.warmup_ms == 20.0
    told.clear()
    validate_table(table, tiny_space(), networks=10, device=machine)
    assert set(told) == {20.0}


def test_this_machine_warms_up_as_long_as_the_group_says(monkeypatch):
    told = []

    def watched(*arguments, **settings):
        told.append(settings["warmup_ms"])
        return measure_interleaved(*arguments, **settings)

    monkeypatch.setattr(prepared, "measure_interleaved", watched)
    group = Group("nothing", "f" * 16, {"a": Overhead()}, seed=0, precision=0.5, time_limit_s=0.2)
    for warmup_ms in (0.0, 20.0):
        one = replace(group, warmup_ms=warmup_ms)
        LocalDevice(Target()).measure(one, lambda share, text: None)
    assert told == [0.0, 20.0]


def test_a_device_that_measures_something_else_is_refused(machine):
    original = machine._measure

    def another(group, progress):
        found = original(group, progress)
        found.summaries.popitem()
        return found

    machine._measure = another
    with pytest.raises(UserError, match="is not what was asked for"):
        profile(machine)
