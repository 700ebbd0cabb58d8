"""A bundle with stages on a device: each exit checked and timed there."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from staged_helpers import export_staged

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.runner.expected import expected_cost
from nat2deploy.remote.bundle_verification import verify_on_device
from nat2deploy.remote.ssh import SshAddress, SshSettings


def test_what_each_exit_takes_on_the_device_is_kept_in_the_bundle(tmp_path, sshd, device_python):
    manifest = export_staged(tmp_path / "staged", {"accuracy_drop": 0.0}, time_limit_s=None)
    settings = SshSettings(SshAddress.parse(sshd.address), str(device_python), sshd.options)
    found = verify_on_device(
        tmp_path / "staged",
        settings,
        seed=0,
        time_limit_s=0.5,
        progress=lambda share, text: None,
        say=pytest.fail,
    )
    assert found.ok
    assert [check.name for check in found.checks] == ["files", "parity", "latency", "expected"]
    with open_bundle(tmp_path / "staged") as opened:
        opened.check()
        (there,) = opened.evidence()
    medians = [one.median_ms for one in there.stages.exits]
    assert there.device == "127.0.0.1" and len(medians) == 3
    assert there.latency.median_ms == medians[-1] > medians[0]
    assert there.stages.expected_ms == pytest.approx(expected_cost(manifest.stages.shares, medians))
    assert found.expected_ms == there.stages.expected_ms
