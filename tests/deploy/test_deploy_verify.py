from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from deploy_helpers import Budget, again

from nat2deploy.deploy.evidence import DeviceEvidence
from nat2deploy.deploy.reference import load_reference, save_reference
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.deploy.zipped import pack
from nat2deploy.errors import UserError


def test_a_good_bundle_passes_every_check(exported: Path) -> None:
    found = verify_bundle(exported, seed=0, time_limit_s=0.3)
    assert found.ok and found.same_machine and found.network == "abc123"
    assert [check.name for check in found.checks] == ["files", "parity", "latency", "latency<=60s"]
    assert found.max_difference < 1e-3 and found.top1_agreement == 1.0
    assert 0 < found.latency.ci_low_ms <= found.latency.median_ms <= found.latency.ci_high_ms
    assert "at export on this machine" in found.checks[2].text
    as_json = json.loads(json.dumps(asdict(found)))
    assert as_json["ok"] is True and as_json["checks"][3]["ok"] is True


def test_a_zip_is_verified_too(exported: Path, tmp_path: Path) -> None:
    pack(exported, tmp_path / "tiny.zip")
    assert verify_bundle(tmp_path / "tiny.zip", seed=0, time_limit_s=0.3).ok


def test_a_latency_over_its_budget_fails(bundle: Path) -> None:
    tight = Budget("latency<=1us", "latency_ms", 0.001)
    again(bundle, lambda value: value.update(budgets=[vars(tight)]))
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert not found.ok
    assert [check.name for check in found.checks if not check.ok] == ["latency<=1us"]
    assert found.checks[-1].text.endswith("of 0.001 ms")


def test_percentiles_have_budgets_of_their_own(bundle: Path) -> None:
    budgets = [
        Budget("latency.p95<=9s", "latency_p95_ms", 9e3),
        Budget("latency.p99<=1us", "latency_p99_ms", 1e-3),
    ]
    again(bundle, lambda value: value.update(budgets=[vars(budget) for budget in budgets]))
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert [check.name for check in found.checks if not check.ok] == ["latency.p99<=1us"]
    assert found.checks[-2].text.startswith(f"{found.latency.p95_ms:.3f} ms of 9000")
    assert found.checks[-1].text.startswith(f"{found.latency.p99_ms:.3f} ms of 0.001")


def test_a_device_with_more_cores_is_verified_without_measuring(bundle: Path) -> None:
    def elsewhere(value: dict) -> None:
        value["target"].update(threads=1000)

    again(bundle, elsewhere, measured=lambda one: None)
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert found.ok and found.latency is None and not found.same_machine
    assert [check.name for check in found.checks] == ["files", "parity", "latency"]
    assert "not measured: the target has 1000 threads" in found.checks[2].text
    assert json.loads(json.dumps(asdict(found)))["latency"] is None


def test_another_machine_is_said(bundle: Path) -> None:
    def elsewhere(one: DeviceEvidence) -> DeviceEvidence:
        machine = one.latency.fingerprint.model_copy(update={"cpu": "Z80"})
        return one.model_copy(update={"latency": one.latency.model_copy(update={"fingerprint": machine})})

    again(bundle, measured=elsewhere)
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert found.ok and not found.same_machine
    assert "on another machine" in found.checks[2].text and "not the machine" in found.checks[3].text


def test_an_engine_that_says_something_else_fails(bundle: Path) -> None:
    images, logits = load_reference(bundle / "reference.npz")
    save_reference(bundle / "reference.npz", images, {"logits": np.ascontiguousarray(logits[::-1])})
    again(bundle)
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert not found.ok and not found.checks[1].ok and found.max_difference > 1e-3


def test_a_changed_file_is_bad_input(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("nonsense")
    with pytest.raises(UserError, match=r"labels\.txt is changed"):
        verify_bundle(bundle, seed=0)
