"""The whole way on a simulated machine: blocks and networks are compiled for real, latencies made up."""

import json

import numpy as np
import pytest

import nat2deploy.measure.plan as plan_module
from nat2deploy.cost.energy import energy_words
from nat2deploy.cost.fitting import certify_networks
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.network_choice import Network
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.measure import partial_profile
from nat2deploy.measure.device import Device, LocalDevice
from nat2deploy.measure.groups import Block, Overhead
from nat2deploy.measure.interleave import Measurement
from nat2deploy.measure.partial_profile import partial_target
from nat2deploy.measure.plan import CLASS_LADDER, ProfilePlan
from nat2deploy.measure.profiler import profile_space, validate_table
from nat2deploy.measure.statistics import Summary
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import every_signature, plan_network
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target, fingerprint

OVERHEAD_MS = 0.002


def tiny_space():
    nano = load_space("nano")
    return nano.model_copy(
        update={
            "name": "tiny",
            "resolutions": (28,),
            "stages": nano.stages[:2],
            "expansions": (2.0, 3.0),
            "depths": (1, 2),
        }
    )


class Machine(Device):
    """Stands in for the clock: a block's true cost follows from its signature, a network's from its blocks.

    A network pays the call overhead once and a little for its weights, so plain sums are wrong.
    """

    def __init__(self):
        self.noise = 0.002
        self.speed = 1.0
        self.sessions = []
        self.fail_after = None
        self.metered = False
        self.clocks = ()
        self.rng = np.random.default_rng(0)

    def fingerprint(self):
        return fingerprint()

    def network_ms(self, network):
        compute = sum(self.block_ms(signature) - OVERHEAD_MS for signature in network.signatures)
        weights_mb = sum(s.params for s in network.signatures if s.kind == "mbconv") * 4e-6
        return OVERHEAD_MS + 0.9 * compute + 0.02 * weights_mb

    @staticmethod
    def block_ms(signature):
        return OVERHEAD_MS + 2e-8 * signature.macs + 1e-6 * signature.height * signature.kernel

    def _measure(self, group, progress):
        if self.fail_after is not None and len(self.sessions) >= self.fail_after:
            raise KeyboardInterrupt
        self.sessions.append((list(group.candidates), group.time_limit_s))
        progress(0.5, "round 1")
        summaries = {}
        for name, candidate in group.candidates.items():
            if isinstance(candidate, Overhead):
                true_ms = OVERHEAD_MS
            elif isinstance(candidate, Block):
                true_ms = self.block_ms(candidate.signature)
            else:
                true_ms = self.network_ms(candidate.network)
            median = true_ms * self.speed * (1 + self.noise * self.rng.standard_normal())
            summaries[name] = Summary(
                median, 1.1 * median, 1.2 * median, 0.995 * median, 1.005 * median, 60, 6
            )
        return Measurement(
            summaries=summaries,
            converged=dict.fromkeys(summaries, True),
            noise_floor=self.noise,
            reference_ms=0.1 * self.speed,
            drift=0.01,
            rounds=6,
            discarded_rounds=0,
            interrupted_share=0.0,
            elapsed_s=1.0,
            **self.energy(group, summaries),
            clocks=self.clocks,
        )

    def energy(self, group, summaries):
        """Two watts, where the machine has a meter and somebody asks."""
        if not group.energy_share:
            return {}
        if not self.metered:
            return {"energy_word": "no meter here"}
        return {
            "energy_mj": {name: 2 * s.median_ms for name, s in summaries.items()},
            "energy_word": "a meter",
        }


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(plan_module, "_BLOCKS_AT_ONCE", 10)
    return Machine()


def profile(machine, *, partial=None, progress=None, **changes):
    settings = {"calibration_networks": 12, "held_out_networks": 8, "time_limit_s": 30.0, **changes}
    plan = ProfilePlan(tiny_space(), Target(), **settings)
    return profile_space(plan, machine, partial=partial, progress=progress)


def blocks_of(machine):
    return [name for names, _ in machine.sessions for name in names if "-h" in name]


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


def test_energy_and_clock_of_an_interrupted_profile_are_kept(machine, tmp_path):
    partial = tmp_path / "partial.json"
    machine.metered, machine.fail_after = True, 2
    machine.clocks = ({"governor": "performance", "mhz": 3000.0}, {"governor": "performance", "mhz": 3010.0})
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    machine.fail_after = None
    machine.clocks = ({"governor": "performance", "mhz": 3000.0}, {"governor": "powersave", "mhz": 1500.0})
    said = []
    table = profile(machine, partial=partial, progress=lambda share, text: said.append(text))
    assert all(entry.energy_mj > 0 for entry in table.entries.values()) and table.energy == "a meter"
    assert "governor changed from performance to powersave" in table.clock_changes
    assert "frequency between 1500 and 3010 MHz" in table.clock_changes
    assert sum(text.startswith("the processor's clock did not stay the same") for text in said) == len(
        table.clock_changes
    )
    assert (table.fingerprint.governor, table.fingerprint.mhz) == ("powersave", 1500.0)


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


def test_an_interrupted_profile_goes_on(machine, tmp_path):
    partial = tmp_path / ".partial"
    machine.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    before = set(blocks_of(machine))
    assert len(before) == 20
    assert len(json.loads(partial.read_text())["chunks"]) == 2
    machine.fail_after, machine.sessions = None, []
    words = []
    table = profile(machine, partial=partial, progress=lambda share, text: words.append(text))
    assert "going on: 20 blocks were measured before" in words
    assert not before & set(blocks_of(machine))
    assert before | set(blocks_of(machine)) == set(table.entries)
    assert not partial.exists()


def test_an_interrupted_profile_tells_its_target(machine, tmp_path, monkeypatch):
    partial, others = tmp_path / ".partial", [Target(threads=2), Target(backend="torch")]
    assert partial_target(partial, tiny_space(), [Target()]) is None
    machine.fail_after = 1
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    assert partial_target(partial, tiny_space(), [*others, Target()]) == Target()
    assert partial_target(partial, tiny_space(), others) is None
    assert partial_target(partial, load_space("nano"), [Target()]) is None
    there = fingerprint().model_copy(update={"cpu": "A board"})
    with monkeypatch.context() as patch:
        patch.setattr(partial_profile, "fingerprint", lambda device: there)
        assert partial_target(partial, tiny_space(), [Target()]) is None
    partial.write_text("{")
    assert partial_target(partial, tiny_space(), [Target()]) is None


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda text: text[:100], "not JSON"),
        (lambda text: text.replace('"median_ms": ', '"median_ms": -'), "median_ms"),
        (lambda text: text.replace('"seed": 0', '"seed": 1'), "another seed"),
        (lambda text: text.replace('"threads": 1', '"threads": 2'), "another target"),
    ],
)
def test_another_partial_profile_is_not_used(machine, tmp_path, damage, word):
    partial = tmp_path / ".partial"
    machine.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    partial.write_text(damage(partial.read_text()))
    machine.fail_after, machine.sessions = None, []
    words = []
    table = profile(machine, partial=partial, progress=lambda share, text: words.append(text))
    assert any(text.startswith("beginning anew") and word in text for text in words)
    assert sorted(blocks_of(machine)) == sorted(table.entries)


def test_a_noisy_machine_gets_a_table_without_certificate(machine):
    machine.noise = 0.04
    words = []
    table = profile(machine, progress=lambda share, text: words.append((share, text)))
    assert table.certificate is None
    assert table.calibration is not None
    assert words[-1][0] == 1.0
    assert "no certificate: the machine's noise is 4.0%" in words[-1][1]


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
    together = profile(machine)
    (names,) = [names for names, _ in machine.sessions if "-h" not in names[-1]]
    machine.sessions, machine.rng = [], np.random.default_rng(0)
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
    with pytest.raises(UserError, match="'tiny' has only 1 networks"):
        profile_space(ProfilePlan(space, Target(), time_limit_s=30.0), machine)


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


def test_a_resumed_profile_asks_for_the_same_groups(machine, tmp_path):
    """So a device that finished a group which never arrived knows it again."""
    groups = []
    original = machine._measure

    def watched(group, progress):
        groups.append((group.name, group.profile, group.seed, group.time_limit_s, list(group.candidates)))
        return original(group, progress)

    machine._measure = watched
    partial = tmp_path / ".partial"
    machine.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    interrupted = groups.pop()
    machine.fail_after = None
    profile(machine, partial=partial)
    assert groups[2] == interrupted
    assert len({name for name, *_ in groups}) == len(groups)
    assert len({identity for _, identity, *_ in groups}) == 1
    profile(machine)
    assert groups[-1][1] != interrupted[1]


def test_a_device_that_measures_something_else_is_refused(machine):
    original = machine._measure

    def another(group, progress):
        found = original(group, progress)
        found.summaries.popitem()
        return found

    machine._measure = another
    with pytest.raises(UserError, match="is not what was asked for"):
        profile(machine)
