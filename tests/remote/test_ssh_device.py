"""A real sshd on loopback, and behind it a Python that has numpy and onnxruntime only."""

import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from devices import make_old_python, make_python

import nat2deploy.measure.plan as plan_module
from nat2deploy.cli import main
from nat2deploy.cost.table import LatencyTable, load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.measure.groups import Group, Overhead
from nat2deploy.progress import REMARK
from nat2deploy.remote.ssh import ConnectionLost, SshAddress, SshSettings
from nat2deploy.remote.ssh_device import SshDevice
from nat2deploy.run.config import ProfileConfig, SpaceConfig, load_pipeline
from nat2deploy.run.profile import profile, profile_once
from nat2deploy.run.tables import validate
from nat2deploy.target import Target, fingerprint


@pytest.fixture(scope="module")
def settings(sshd, device_python):
    return SshSettings(SshAddress.parse(sshd.address), str(device_python), sshd.options)


def left_on_device(sshd):
    """Jobs that the device still holds."""
    return list((sshd.home / ".cache/nat2deploy/jobs").glob("[!.]*"))


@dataclass
class Disturbed:
    """What was said and done in a profile whose connection was cut, which was interrupted and went on."""

    before: list[tuple[str, str]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    held: int = 0
    after: list[tuple[str, str]] = field(default_factory=list)
    table: LatencyTable | None = None
    path: Path | None = None


@pytest.fixture(scope="module")
def disturbed(settings, sshd, tiny_file, tmp_path_factory):
    """Profile the tiny space in two groups of blocks; cut the first, and interrupt at the second."""
    found = Disturbed(path=tmp_path_factory.mktemp("disturbed") / "table.json")

    def run(watch):
        return profile(
            SpaceConfig(name=str(tiny_file)),
            Target(),
            # A precision that is never reached: a group takes its whole time, so there is a middle to cut.
            ProfileConfig(precision=1e-9, time_limit_s=4.0, calibration_networks=4, held_out_networks=4),
            found.path,
            ssh=settings,
            report=lambda stage, done, total, detail="": watch(stage, detail),
        )

    def cut_and_stop(stage, text):
        found.before.append((stage, text))
        if stage == "profile" and "round" in text and not found.cuts:
            found.cuts.append(sshd.cut())
        if text.startswith("blocks 13 to"):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "_BLOCKS_AT_ONCE", 12)
        with pytest.raises(KeyboardInterrupt):
            run(cut_and_stop)
        found.held = len(left_on_device(sshd))
        found.table = run(lambda stage, text: found.after.append((stage, text)))
    assert left_on_device(sshd) == []
    return found


@pytest.mark.slow
def test_a_profile_with_its_connection_cut_in_the_middle(disturbed, sshd):
    assert disturbed.cuts[0] >= 1
    remarks = [text for stage, text in disturbed.before if stage == REMARK]
    (lost,) = [text for text in remarks if "machine is busy" not in text]
    assert "trying blocks 1 to 12 of" in lost and sshd.address in lost
    table = disturbed.table
    assert load_table(disturbed.path) == table
    assert table.calibration.networks == 4
    assert table.fingerprint.libraries["torch"] == "not installed"
    assert table.fingerprint.same_machine(fingerprint())
    assert [path.name for path in disturbed.path.parent.iterdir()] == ["table.json"]


@pytest.mark.slow
def test_an_interrupted_profile_goes_on(disturbed):
    assert disturbed.held == 1
    said = [text for _, text in disturbed.after]
    assert "going on: 12 blocks were measured before" in said
    assert not any(text.startswith("blocks 1 to") for text in said)
    assert any(text.startswith("blocks 13 to") for text in said)
    assert len(disturbed.table.entries) > 12


def test_a_group_that_the_device_has_finished_is_not_measured_again(settings, sshd):
    group = Group("nothing", "f" * 16, {"a": Overhead()}, seed=0, precision=0.5, time_limit_s=0.2)
    device = SshDevice(settings, Target(), say=lambda text: pytest.fail(text))
    first = device.measure(group, lambda share, text: None)
    (job,) = left_on_device(sshd)
    assert not list(job.rglob("*.onnx"))

    said = []
    later = SshDevice(settings, Target(), say=lambda text: pytest.fail(text))
    assert later.measure(group, lambda share, text: said.append(text)) == first
    assert not any("round" in text for text in said)
    other = later.measure(replace(group, profile="e" * 16), lambda share, text: said.append(text))
    assert any("round" in text for text in said)
    assert other.summaries["a"].median_ms > 0
    device.finish()
    later.finish()
    assert left_on_device(sshd) == []


def test_a_connection_that_stays_away_is_given_up(settings, monkeypatch):
    said = []
    device = SshDevice(settings, Target(), say=said.append, waits_s=(0.0, 0.0))
    device.fingerprint()

    def gone(command, **options):
        raise ConnectionLost("No route to host")

    monkeypatch.setattr(device._connection, "ask", gone)
    group = Group("nothing", "f" * 16, {"a": Overhead()}, seed=0, precision=0.5, time_limit_s=0.2)
    with pytest.raises(UserError, match=r"lost 3 times \(No route to host\); give the same command again"):
        device.measure(group, lambda share, text: None)
    assert len(said) == 2
    device.finish()
    assert "left on the device" in said[-1]


@pytest.fixture(scope="module")
def config(sshd, device_python, tiny_file, tmp_path_factory):
    """A pipeline that profiles on the device."""
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(
        f"""
data = "digits"
[space]
name = "{tiny_file}"
[profile]
device = "{sshd.address}"
python = "{device_python}"
ssh_options = {list(sshd.options)}
precision = 0.5
time_limit_s = 2.0
calibration_networks = 4
held_out_networks = 4
"""
    )
    return load_pipeline(path)


@pytest.fixture(scope="module")
def profiled(config, tmp_path_factory):
    """The pipeline's table, its file, and what was said meanwhile."""
    out = tmp_path_factory.mktemp("profiled") / "table.json"
    said = []

    def report(stage, done, total, detail=""):
        said.append(detail)

    return profile_once(config.space, config.target, config.profile, out, seed=0, report=report), out, said


@pytest.mark.slow
def test_a_pipeline_profiles_on_the_device_that_its_config_names(config, profiled, tmp_path):
    table, out, said = profiled
    assert table.fingerprint.libraries["torch"] == "not installed"
    assert any("sending" in text for text in said)
    again = profile_once(config.space, config.target, config.profile, out, seed=0, report=pytest.fail)
    assert again == table
    wrong = config.profile.model_copy(update={"device": "ssh://"})
    with pytest.raises(UserError, match="is no address"):
        profile_once(config.space, config.target, wrong, tmp_path / "t.json", seed=0, report=pytest.fail)


@pytest.mark.slow
def test_a_table_is_validated_on_the_device_that_it_is_of(profiled, settings, sshd, tiny_file, tmp_path):
    table = profiled[0]
    save_table(table, tmp_path / "table.json")
    said = []

    def report(stage, done, total, detail=""):
        said.append(detail)

    options = {"space_name": str(tiny_file), "networks": 4, "seed": 5, "time_limit_s": 1.0}
    try:
        found = validate(tmp_path / "table.json", ssh=settings, report=report, **options)
    except UserError as error:  # on a busy machine
        assert "noise" in str(error)
    else:
        assert found.fresh.networks == 4
        assert found.contradicted == (load_table(tmp_path / "table.json") == table)
    assert any(text.startswith("networks: sending") for text in said)
    assert left_on_device(sshd) == []
    elsewhere = table.fingerprint.model_copy(update={"cpu": "A board"})
    save_table(table.model_copy(update={"fingerprint": elsewhere}), tmp_path / "table.json")
    with pytest.raises(UserError, match="was measured on A board"):
        validate(tmp_path / "table.json", ssh=settings, **options)


@pytest.fixture
def refused(monkeypatch, capsys, sshd, tiny_file, tmp_path):
    """Run the command; it must end with code 2, one line and nothing written."""

    def run(address, python, *words):
        arguments = ["profile", "--device", address, "--space", str(tiny_file), "--python", str(python)]
        for option in sshd.options:
            arguments += ["--ssh-option", option]
        out = tmp_path / "out" / "table.json"
        monkeypatch.setattr(sys, "argv", ["nat2deploy", *arguments, "--out", str(out), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == 2 and printed.out == "" and not out.parent.exists()
        (line,) = printed.err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


def test_nobody_listens(refused, sshd):
    address = sshd.address.rpartition(":")[0] + ":1"
    assert f"cannot reach {address}" in refused(address, "python3")


def test_a_key_that_is_not_known_there(refused, sshd):
    address = sshd.address.replace("ssh://", "ssh://nobody-")
    line = refused(address, "python3")
    assert "cannot reach" in line and "Permission denied" in line


def test_what_the_device_lacks(refused, sshd, tmp_path, device_python):
    line = refused(sshd.address, "python-that-is-not-there")
    assert "has no `python-that-is-not-there`" in line
    line = refused(sshd.address, make_python(tmp_path / "empty"))
    assert "No module named 'numpy'" in line and sshd.address in line
    line = refused(sshd.address, make_python(tmp_path / "numpy", "numpy"))
    assert "No module named 'onnxruntime'" in line
    line = refused(sshd.address, make_old_python(tmp_path / "old", device_python))
    assert "Python 3.8 is too old" in line


def test_more_threads_than_the_device_has(refused, sshd, device_python):
    line = refused(sshd.address, device_python, "--threads", "1000")
    assert f"threads: 1000 asked for, {sshd.address} has {fingerprint().cores} cores" in line


def test_another_machine_behind_the_same_address(settings, monkeypatch):
    device = SshDevice(settings, Target(), say=lambda text: pytest.fail(text))
    original = device._connection.ask

    def swapped(command, **options):
        answer = original(command, **options)
        if "result" in answer:
            answer["result"]["machine"]["cpu"] = "Another board"
        return answer

    monkeypatch.setattr(device._connection, "ask", swapped)
    group = Group("nothing", "d" * 16, {"a": Overhead()}, seed=0, precision=0.5, time_limit_s=0.2)
    with pytest.raises(UserError, match="and is now Another board"):
        device.measure(group, lambda share, text: None)
    device.finish()


def test_jobs_that_nobody_went_on_with_are_forgotten(settings, sshd):
    jobs = sshd.home / ".cache/nat2deploy/jobs"
    for name, days in (("a" * 16, 31), ("b" * 16, 29), ("mine", 99)):
        (jobs / name).mkdir(parents=True)
        os.utime(jobs / name, (time.time() - days * 86400,) * 2)
    SshDevice(settings, Target(), say=lambda text: None).fingerprint()
    assert {path.name for path in left_on_device(sshd)} == {"b" * 16, "mine"}
    for name in ("b" * 16, "mine"):
        (jobs / name).rmdir()


@pytest.mark.parametrize(
    ("address", "words", "line"),
    [
        ("ssh://-oProxyCommand=true", (), "is no address"),
        ("ssh://a@b", ("--backend", "torch"), "backend torch cannot be measured on another device"),
        ("ssh://a@b", ("--backend", "auto"), "an ssh device has onnxruntime only"),
        ("ssh://a@b", ("--precision", "bf16"), "backend onnxruntime runs fp32 and int8, not bf16"),
        ("ssh://a@b", ("--ssh-option", "-v"), "KEY=VALUE"),
    ],
)
def test_words_that_do_not_fit(refused, address, words, line):
    assert line in refused(address, "python3", *words)
