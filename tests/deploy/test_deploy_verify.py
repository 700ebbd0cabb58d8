from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from deploy_helpers import Budget, again, make_images

from nat2deploy.deploy.evidence import DeviceEvidence, write_evidence
from nat2deploy.deploy.reference import load_reference, save_reference
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.deploy.zipped import pack
from nat2deploy.errors import UserError
from nat2deploy.target import Target


def test_a_good_bundle_passes_every_check(exported: Path) -> None:
    found = verify_bundle(exported, seed=0, time_limit_s=0.3)
    assert found.ok and found.same_machine and found.network == "abc123"
    assert [check.name for check in found.checks] == [
        "files",
        "parity",
        "latency",
        "latency<=60s",
        "macs<=1M",
    ]
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


@pytest.mark.parametrize(
    ("budget", "kept", "finding"),
    [
        (Budget("macs<=12k", "macs", 12_000.0), False, "12,345 of 12,000"),
        (Budget("params<=678", "params", 678.0), True, "678 of 678"),
        (Budget("size<=8kB", "size_mb", 0.008), True, "0.007052 MB of 0.008 MB"),
        (Budget("size<=7kB", "size_mb", 0.007), False, "0.007052 MB of 0.007 MB"),
        (Budget("top1>=80%", "top1", 0.8), True, "75.00% on 40 test images, of 80.00%"),
        (Budget("top1>=95%", "top1", 0.95), False, "75.00% on 40 test images, of 95.00%"),
        (Budget("memory<=1kB", "memory_mb", 0.001), True, "not looked at: a bundle does not tell it"),
    ],
)
def test_every_budget_is_held_against_the_bundle(
    bundle: Path, budget: Budget, kept: bool, finding: str
) -> None:
    again(bundle, lambda value: value.update(budgets=[vars(budget)]), measured=lambda one: None)
    found = verify_bundle(bundle, seed=0, time_limit_s=0.1)
    assert (found.checks[-1].name, found.checks[-1].ok, found.checks[-1].text) == (budget.text, kept, finding)
    assert found.ok == kept
    # What every machine finds is a fault of the bundle on another machine, too.
    assert not found.same_machine and [one.name for one in found.faults] == [budget.text] * (not kept)


def test_a_budget_on_size_counts_layers_in_8_bits_by_what_they_take(export, tmp_path: Path) -> None:
    given = {"test": None, "budgets": [Budget("size<=2kB", "size_mb", 0.002)]}
    export(target=Target(precision="int8"), calibration_images=make_images(8), **given)
    eight = verify_bundle(tmp_path / "out", seed=0, time_limit_s=0.1)
    assert eight.ok and eight.checks[-1].name == "size<=2kB"
    export(out=tmp_path / "float", **given)
    assert not verify_bundle(tmp_path / "float", seed=0, time_limit_s=0.1).ok


def test_a_device_with_more_cores_is_verified_without_measuring(bundle: Path) -> None:
    def elsewhere(value: dict) -> None:
        value["target"].update(threads=1000)

    again(bundle, elsewhere, measured=lambda one: None)
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert found.ok and found.latency is None and not found.same_machine
    assert [check.name for check in found.checks] == ["files", "parity", "latency", "macs<=1M"]
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
    write_evidence(bundle, ())
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert not found.same_machine
    assert found.checks[3].text.endswith(" (no latency was measured at export)")


def test_an_engine_that_says_something_else_fails(bundle: Path) -> None:
    images, logits = load_reference(bundle / "reference.npz")
    save_reference(bundle / "reference.npz", images, {"logits": np.ascontiguousarray(logits[::-1])})
    again(bundle)
    found = verify_bundle(bundle, seed=0, time_limit_s=0.3)
    assert not found.ok and not found.checks[1].ok and found.max_difference > 1e-3


@pytest.mark.parametrize("change", [list.pop, lambda labels: labels.append("one more")])
def test_labels_that_the_network_does_not_have_are_bad_input(bundle: Path, change) -> None:
    def relabel(value: dict) -> None:
        labels = [*value["output"]["labels"]]
        change(labels)
        value["output"]["labels"] = labels

    again(bundle, relabel)
    with pytest.raises(UserError, match=r"labels for \d+ classes; export it again"):
        verify_bundle(bundle, seed=0)


def test_a_zip_with_a_folder_around_the_bundle_is_one_too(bundle: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(bundle, outer / "my bundle")
    (outer / "__MACOSX" / "my bundle").mkdir(parents=True)
    (outer / "__MACOSX" / "my bundle" / "._manifest.json").write_bytes(b"\0")
    pack(outer, tmp_path / "sent.zip")
    assert verify_bundle(tmp_path / "sent.zip", seed=0, time_limit_s=0.3).ok
    (outer / "stranger.txt").write_text("beside it")
    pack(outer, tmp_path / "mixed.zip")
    with pytest.raises(UserError, match="no manifest"):
        verify_bundle(tmp_path / "mixed.zip", seed=0)


def test_a_changed_file_is_bad_input(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("nonsense")
    with pytest.raises(UserError, match=r"labels\.txt is changed"):
        verify_bundle(bundle, seed=0)
