"""A bundle with stages on a device: each exit checked and timed there."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from staged_helpers import export_staged

from nat2deploy.deploy import stages as stages_module
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.made import measure
from nat2deploy.deploy.runner.expected import expected_cost
from nat2deploy.remote.bundle_verification import verify_on_device
from nat2deploy.remote.ssh import SshAddress, SshSettings


@pytest.fixture
def verify(sshd, device_python):
    settings = SshSettings(SshAddress.parse(sshd.address), str(device_python), sshd.options)
    silent = {"progress": lambda share, text: None, "say": pytest.fail}
    return lambda path: verify_on_device(path, settings, seed=0, time_limit_s=0.5, **silent)


def test_what_each_exit_takes_on_the_device_is_kept_in_the_bundle(tmp_path, verify):
    manifest = export_staged(tmp_path / "staged", {"accuracy_drop": 0.0}, time_limit_s=None)
    found = verify(tmp_path / "staged")
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


def test_a_single_stage_takes_what_all_of_it_takes(tmp_path, verify, monkeypatch):
    def measured(chains, given, confidence=None):
        """A cut takes far too long to pay."""
        found = []
        for chain in chains:
            (one,) = measure({"all": chain.engine}, given.seed, 0.1)
            found.append(
                [one.model_copy(update={"median_ms": 1 + 1e6 * n}) for n in range(len(chain.models))]
            )
        return found

    with monkeypatch.context() as patch:
        patch.setattr(stages_module, "_latencies", measured)
        manifest = export_staged(tmp_path / "staged", {"expected_latency_ms": 60_000.0})
    assert len(manifest.stages.exits) == 1
    found = verify(tmp_path / "staged")
    with open_bundle(tmp_path / "staged") as opened:
        there = next(one for one in opened.evidence() if one.device == "127.0.0.1")
    assert there.stages.expected_ms == found.expected_ms == there.latency.median_ms > 0
