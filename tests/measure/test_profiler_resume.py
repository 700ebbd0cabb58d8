"""Profiles that were interrupted on a simulated machine, and go on."""

import json

import pytest
from simulated_machine import blocks_of, profile, tiny_space

from nat2deploy.cost.doubts import doubts
from nat2deploy.errors import UserError
from nat2deploy.measure import partial_profile
from nat2deploy.measure.partial_profile import partial_target
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target, fingerprint


def test_energy_and_clock_of_an_interrupted_profile_are_kept(machine, tmp_path):
    partial = tmp_path / "partial.json"
    machine.metered, machine.fail_after = True, 2
    machine.clocks = ({"governor": "performance", "mhz": 3000.0}, {"governor": "performance", "mhz": 3010.0})
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    machine.fail_after = None
    machine.clocks = ({"governor": "performance", "mhz": 3000.0}, {"governor": "powersave", "mhz": 1500.0})
    table = profile(machine, partial=partial)
    assert all(entry.energy_mj > 0 for entry in table.entries.values()) and table.energy == "a meter"
    assert "governor changed from performance to powersave" in table.clock_changes
    assert "frequency between 1500 and 3010 MHz" in table.clock_changes
    assert doubts(table) == [
        f"the processor's clock did not stay the same: {change}" for change in table.clock_changes
    ]
    assert (table.fingerprint.governor, table.fingerprint.mhz) == ("powersave", 1500.0)


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
    table = profile(machine, partial=partial, remark=words.append)
    assert words == ["going on: 20 blocks were measured before"]
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
    table = profile(machine, partial=partial, remark=words.append)
    assert any(text.startswith("beginning anew") and word in text for text in words)
    assert sorted(blocks_of(machine)) == sorted(table.entries)


def test_what_was_measured_with_other_settings_waits_for_them(machine, tmp_path):
    partial = tmp_path / ".partial"
    words, asked = [], {}

    def begin(seed, fail_after):
        machine.fail_after, machine.sessions = fail_after, []
        if fail_after is None:
            return profile(machine, partial=partial, remark=words.append, seed=seed)
        with pytest.raises(KeyboardInterrupt):
            profile(machine, partial=partial, remark=words.append, seed=seed)
        asked[seed] = set(blocks_of(machine)) | asked.get(seed, set())
        return None

    begin(0, 2)
    begin(1, 1)
    assert words == [f"beginning anew: {partial} is of another seed; it waits beside it"]
    begin(0, 0)
    assert words[1:] == ["going on: 20 blocks were measured before"]
    begin(1, 0)
    assert words[2:] == ["going on: 10 blocks were measured before"]
    table = begin(0, None)
    assert words[3:] == ["going on: 20 blocks were measured before"]
    assert set(blocks_of(machine)) == set(table.entries) - asked[0]
    assert list(tmp_path.iterdir()) == []


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


def in_parts(machine, monkeypatch):
    """Networks in several groups: the sizes of the groups of a whole profile."""
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1 << 20)
    profile(machine)
    blocks = sum("-h" in names[-1] for names, _ in machine.sessions)
    assert len(machine.sessions) > blocks + 2
    return blocks


def test_networks_measured_before_an_interruption_are_not_measured_again(machine, tmp_path, monkeypatch):
    partial = tmp_path / ".partial"
    blocks = in_parts(machine, monkeypatch)
    sessions = len(machine.sessions)
    machine.sessions, machine.fail_after = [], blocks + 2
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    before = {name for names, _ in machine.sessions[blocks:] for name in names}
    machine.sessions, machine.fail_after = [], None
    words = []
    table = profile(machine, partial=partial, remark=words.append)
    (word,) = words
    assert word.endswith(f"blocks and {len(before)} networks were measured before")
    assert len(machine.sessions) == sessions - blocks - 2
    assert not {name for names, _ in machine.sessions for name in names} & before
    assert len(table.networks) == 20 and table.certificate.mape < 0.02
    assert not partial.exists()


def test_networks_of_other_numbers_are_measured_anew(machine, tmp_path, monkeypatch):
    partial = tmp_path / ".partial"
    blocks = in_parts(machine, monkeypatch)
    machine.sessions, machine.fail_after = [], blocks + 2
    with pytest.raises(KeyboardInterrupt):
        profile(machine, partial=partial)
    machine.sessions, machine.fail_after = [], None
    table = profile(machine, partial=partial, held_out_networks=11)
    assert table.certificate.networks == 11
    assert sum(len(names) for names, _ in machine.sessions) == len(table.networks) == 23


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt(), UserError("the disk is full")])
def test_nothing_is_forgotten_before_the_table_is_kept(machine, tmp_path, stopped_by):
    partial = tmp_path / ".partial"

    def fail(table):
        raise stopped_by

    with pytest.raises(type(stopped_by)):
        profile(machine, partial=partial, save=fail)
    assert machine.finished == []
    identity = json.loads(partial.read_text())["profile"]
    machine.sessions, kept = [], []
    table = profile(machine, partial=partial, save=kept.append)
    assert machine.sessions == [] and kept == [table]
    assert machine.finished == [identity] and not partial.exists()
