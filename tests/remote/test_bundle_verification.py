"""A bundle on a device: a real sshd on loopback, and behind it a Python that has numpy and one engine only."""

import json
import os
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from devices import make_python

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from deploy_helpers import Budget, again, export_net

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.reference import load_reference, save_reference
from nat2deploy.deploy.writing import add_evidence
from nat2deploy.deploy.zipped import pack
from nat2deploy.errors import UserError
from nat2deploy.remote import bundle_runner
from nat2deploy.remote.bundle_runner import run_bundle
from nat2deploy.remote.bundle_verification import verify_on_device
from nat2deploy.remote.ssh import SshAddress, SshSettings
from nat2deploy.remote.ssh_device import SshDevice
from nat2deploy.target import Target


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    export_net(out)
    return out


@pytest.fixture
def bundle(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "tiny"))


@pytest.fixture
def settings(sshd, device_python):
    return SshSettings(SshAddress.parse(sshd.address), str(device_python), sshd.options)


@pytest.fixture
def verify(settings):
    def verify(path, settings=settings):
        return verify_on_device(
            path, settings, seed=0, time_limit_s=0.5, progress=lambda share, text: None, say=pytest.fail
        )

    return verify


def left_on_device(sshd):
    cache = sshd.home / ".cache/nat2deploy"
    return [*(cache / "bundles").glob("*"), *(cache / "jobs").glob("[!.]*")]


@pytest.mark.parametrize("zipped", [False, True])
def test_what_the_device_shows_is_kept_in_the_bundle(verify, bundle, sshd, tmp_path, zipped):
    path = bundle
    if zipped:
        path = tmp_path / "tiny.zip"
        pack(bundle, path)
    found = verify(path)
    assert found.ok and found.same_machine  # loopback
    assert [check.name for check in found.checks] == [
        "files",
        "parity",
        "latency",
        "latency<=60s",
        "macs<=1M",
    ]
    assert "on 127.0.0.1" in found.checks[2].text
    with open_bundle(path) as opened:
        opened.check()
        here, there = opened.evidence()
    assert (here.device, there.device) == ("here", "127.0.0.1")
    assert there.latency.median_ms == found.latency.median_ms
    assert there.latency.fingerprint.libraries["torch"] == "not installed"
    assert there.parity.images == 12 and there.parity.max_difference < 1e-3
    assert left_on_device(sshd) == []
    verify(path)
    with open_bundle(path) as opened:
        assert [one.device for one in opened.evidence()] == ["here", "127.0.0.1"]


@pytest.fixture
def meanwhile(settings, monkeypatch):
    """Verifies a bundle to which something happens while it is measured; gives what was found and told."""

    def meanwhile(path, happens):
        measure, said = SshDevice.measure_model, []

        def measured(*given, **options):
            found = measure(*given, **options)
            happens()
            return found

        monkeypatch.setattr(SshDevice, "measure_model", measured)
        found = verify_on_device(
            path, settings, seed=0, time_limit_s=0.5, progress=lambda share, text: None, say=said.append
        )
        return found, said

    return meanwhile


@pytest.mark.parametrize("zipped", [False, True])
def test_what_another_device_showed_meanwhile_is_kept_too(meanwhile, bundle, tmp_path, zipped):
    path = bundle
    if zipped:
        path = tmp_path / "tiny.zip"
        pack(bundle, path)

    def another():
        with open_bundle(path) as opened:
            (here,) = opened.evidence()
            add_evidence(opened, here.model_copy(update={"device": "board"}))

    found, said = meanwhile(path, another)
    assert found.ok and said == []
    with open_bundle(path) as opened:
        assert [one.device for one in opened.evidence()] == ["here", "board", "127.0.0.1"]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_bundle_that_was_exported_anew_meanwhile_stays_as_it_is(meanwhile, tmp_path, zipped):
    path = tmp_path / ("tiny.zip" if zipped else "tiny")
    export_net(path)

    def anew():
        export_net(path, network_id="def456")

    found, said = meanwhile(path, anew)
    assert found.ok
    assert said == [
        f"the evidence was not kept: bundle {path} was exported anew meanwhile; verify that one, too"
    ]
    with open_bundle(path) as opened:
        opened.check()
        assert opened.manifest.network == "def456"
        assert [one.device for one in opened.evidence()] == ["here"]


def test_what_was_found_of_a_bundle_that_cannot_be_written_to_is_told(meanwhile, bundle, monkeypatch):
    def denied(*_):
        raise UserError("cannot write evidence.json: Read-only file system; choose another place")

    monkeypatch.setattr("nat2deploy.deploy.writing.write_evidence", denied)
    found, said = meanwhile(bundle, lambda: None)
    assert found.ok and found.latency is not None
    (line,) = said
    assert line.startswith("the evidence was not kept: cannot write")


def test_what_an_earlier_verification_left_there_is_not_taken(settings, bundle, sshd, monkeypatch):
    said, finish = [], SshDevice.finish
    for _ in range(2):
        said.append([])
        with monkeypatch.context() as patch:
            patch.setattr(SshDevice, "finish", lambda device: None)  # as when the connection is lost
            verify_on_device(
                bundle,
                settings,
                seed=0,
                time_limit_s=0.5,
                progress=lambda share, text: said[-1].append(text),
                say=pytest.fail,
            )
    for words in said:
        assert any("round" in text for text in words)
    for one in left_on_device(sshd):
        finish(SshDevice(settings, Target(), say=pytest.fail), one.name)


def test_a_copy_that_does_not_arrive_whole_leaves_nothing_there(settings, bundle, sshd, monkeypatch):
    plain = bundle_runner.tarfile.open

    def cut(*arguments, **options):
        archive = plain(*arguments, **options)
        close = archive.close

        def close_and_cut():
            close()
            options["fileobj"].truncate(options["fileobj"].tell() // 2)

        archive.close = close_and_cut
        return archive

    monkeypatch.setattr(bundle_runner.tarfile, "open", cut)
    with pytest.raises(UserError, match="measuring failed there: "):
        run_bundle(settings, bundle, "0" * 16, bench=False)
    assert left_on_device(sshd) == []


def test_two_verifications_of_a_bundle_at_once_do_not_meet(settings, bundle, sshd):
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(run_bundle, settings, bundle, "0" * 16, bench=False) for _ in range(2)]
        assert all(one.result().check.ok for one in found)
    assert left_on_device(sshd) == []


def test_what_a_device_kept_when_it_was_switched_off_goes_after_a_day(settings, bundle, sshd):
    bundles = sshd.home / ".cache/nat2deploy/bundles"
    for name, days in (("old", 3), ("new", 0)):
        (bundles / name).mkdir(parents=True)
        then = time.time() - days * 86400
        os.utime(bundles / name, (then, then))
    assert run_bundle(settings, bundle, "0" * 16, bench=False).check.ok
    assert [one.name for one in left_on_device(sshd)] == ["new"]
    (bundles / "new").rmdir()


def test_a_measurement_that_fails_leaves_nothing_there(verify, bundle, sshd, monkeypatch):
    run = SshDevice._run_job

    def fails(*arguments):
        run(*arguments)
        raise UserError("connection lost")

    monkeypatch.setattr(SshDevice, "_run_job", fails)
    with pytest.raises(UserError, match="connection lost"):
        verify(bundle)
    assert left_on_device(sshd) == []


def test_a_budget_that_the_device_does_not_keep_fails(verify, bundle):
    again(bundle, lambda value: value.update(budgets=[vars(Budget("latency<=1us", "latency_ms", 0.001))]))
    found = verify(bundle)
    assert [check.name for check in found.checks if not check.ok] == ["latency<=1us"]


def test_a_device_that_disagrees_with_pytorch_fails(verify, bundle):
    images, logits = load_reference(bundle / "reference.npz")
    save_reference(bundle / "reference.npz", images, {"logits": logits[::-1].copy()})
    again(bundle)
    found = verify(bundle)
    assert not found.ok and not found.checks[1].ok


def test_a_changed_bundle_goes_nowhere(verify, bundle, sshd):
    (bundle / "labels.txt").write_text("other")
    with pytest.raises(UserError, match=r"labels\.txt is changed"):
        verify(bundle)


def test_a_bundle_for_more_cores_than_the_device_has_is_told_so(verify, tmp_path):
    export_net(tmp_path / "wide", target=Target(threads=1000), time_limit_s=None)
    with pytest.raises(UserError, match="threads: 1000 asked for"):
        verify(tmp_path / "wide")


def test_a_device_without_onnxruntime_is_told_what_to_install(verify, bundle, settings, tmp_path):
    bare = make_python(tmp_path / "bare", "numpy")
    with pytest.raises(UserError, match="pip install numpy onnxruntime"):
        verify(bundle, SshSettings(settings.address, str(bare), settings.options))


@pytest.fixture(scope="module")
def openvino_bundle(tmp_path_factory):
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    out = tmp_path_factory.mktemp("openvino") / "tiny"
    export_net(out, target=Target(backend="openvino"))
    return out


def test_another_engines_bundle_is_checked_by_its_runner_and_its_bench_is_told(
    verify, openvino_bundle, settings, sshd, tmp_path
):
    python = make_python(tmp_path / "python", "numpy", "openvino", "openvino-telemetry")
    before = (openvino_bundle / "evidence.json").read_bytes()
    found = verify(openvino_bundle, SshSettings(settings.address, str(python), settings.options))
    assert found.ok and found.latency is None and not found.same_machine
    assert [check.name for check in found.checks] == ["files", "parity", "latency", "macs<=1M"]
    assert found.max_difference < 1e-3 and found.top1_agreement == 1.0
    said = found.checks[2].text
    assert said.startswith("not measured: ") and "openvino on cpu" in said and "no budget" in said
    assert float(re.search(r"by its own --bench ([0-9.]+) ms", said)[1]) > 0
    assert (openvino_bundle / "evidence.json").read_bytes() == before
    assert left_on_device(sshd) == []


def test_another_engines_bundle_that_disagrees_with_pytorch_fails(
    verify, openvino_bundle, settings, tmp_path
):
    bundle = Path(shutil.copytree(openvino_bundle, tmp_path / "tiny"))
    images, logits = load_reference(bundle / "reference.npz")
    save_reference(bundle / "reference.npz", images, {"logits": logits[::-1].copy()})
    again(bundle)
    python = make_python(tmp_path / "python", "numpy", "openvino", "openvino-telemetry")
    found = verify(bundle, SshSettings(settings.address, str(python), settings.options))
    assert [check.name for check in found.faults] == ["parity"]


def test_a_device_without_the_bundles_engine_is_told_what_to_install(verify, openvino_bundle, sshd):
    with pytest.raises(UserError, match=r"needs openvino: .*; run `pip install openvino`") as caught:
        verify(openvino_bundle)
    assert len(str(caught.value).splitlines()) == 1 and left_on_device(sshd) == []


def test_a_device_that_is_not_there_is_one_line(verify, openvino_bundle, settings):
    nowhere = SshAddress(settings.address.host, settings.address.user, 1)
    with pytest.raises(UserError, match="it must work with `ssh` first"):
        verify(openvino_bundle, SshSettings(nowhere, settings.python, settings.options))


def test_the_command_prints_the_checks_and_its_exit_code(bundle, sshd, device_python, command):
    words = ["verify", str(bundle), "--device", sshd.address, "--python", str(device_python), "--json"]
    words += ["--time-limit", "0.5", *(word for option in sshd.options for word in ("--ssh-option", option))]
    code, out, _ = command(*words)
    found = json.loads(out)
    assert code == 0
    assert found["ok"] and found["checks"][1]["name"] == "parity"


@pytest.mark.parametrize("device", ["cuda:0", "ssh://nobody@:x", "pi"])
def test_an_odd_device_is_one_line(bundle, device, command):
    code, out, errors = command("verify", str(bundle), "--device", device)
    assert code == 2 and out == "" and len(errors.strip().splitlines()) == 1
