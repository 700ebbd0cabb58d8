"""Export of a run whose table is of another target."""

import numpy as np
import pytest

from nat2deploy.cost.table import load_table
from nat2deploy.data.load import load_data
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.parity import run_all
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.engines.registry import has_gpu, load_engine
from nat2deploy.errors import UserError
from nat2deploy.run import cost_source
from nat2deploy.run.config import ExportConfig
from nat2deploy.run.export import export
from nat2deploy.target import Target

needs_no_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU here, which verifies the bundle")


@pytest.fixture
def measured_as(outcome, monkeypatch):
    """Say that the run's table is of another target."""

    def pretend(target):
        table = load_table(outcome.out / "table.json").model_copy(update={"target": target})
        monkeypatch.setattr(cost_source, "load_table", lambda path: table)

    return pretend


def test_an_int8_run_becomes_an_int8_bundle_with_the_accuracy_of_8_bits(outcome, measured_as, tmp_path):
    measured_as(Target(precision="int8"))
    # One of the 360 images is over a quarter of a point already.
    manifest = export(outcome.out / "search", ExportConfig(max_accuracy_drop=0.05), tmp_path / "bundle")
    assert manifest.target == Target(precision="int8")
    assert manifest.costs.latency_ms == outcome.manifest.costs.latency_ms
    test = load_data("digits").test
    engine = load_engine(tmp_path / "bundle/model.onnx", manifest.target)
    logits = run_all(engine, manifest.input.preprocessing.apply(test.images).numpy())
    right = float(np.mean(logits.argmax(axis=1) == test.targets.numpy()))
    accuracy = manifest.evidence.accuracy
    assert (accuracy.top1, accuracy.images) == (pytest.approx(right), len(test))
    assert accuracy.top1 == pytest.approx(outcome.manifest.evidence.accuracy.top1, abs=0.05)
    assert (tmp_path / "bundle/model.onnx").read_bytes() != (outcome.bundle / "model.onnx").read_bytes()
    assert verify_bundle(tmp_path / "bundle", seed=0, time_limit_s=0.5).ok


def test_another_engines_table_predicts_nothing(outcome, measured_as, tmp_path):
    measured_as(Target(backend="torch"))
    manifest = export(outcome.out / "search", ExportConfig(), tmp_path / "bundle")
    assert manifest.target == Target()
    assert manifest.costs.latency_ms is None
    assert manifest.costs.macs == outcome.manifest.costs.macs


def test_an_engine_that_does_not_run_on_the_tables_device_is_one_line(outcome, tmp_path):
    with pytest.raises(UserError, match="openvino does not run on cuda"):
        export(outcome.out / "search", ExportConfig(engine="openvino", device="cuda"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@needs_no_gpu
def test_a_gpus_bundle_says_that_no_device_has_verified_it(outcome, measured_as, tmp_path):
    measured_as(Target(device="cuda", backend="tensorrt", precision="fp16"))
    config = ExportConfig(engine="tensorrt")
    manifest = export(outcome.out / "search", config, tmp_path / "bundle")
    assert manifest.target == Target(device="cuda", backend="tensorrt", precision="fp16")
    assert manifest.evidence.device == "not verified on a device"
    assert (tmp_path / "bundle" / "build.py").is_file()
    with open_bundle(tmp_path / "bundle") as bundle:
        assert bundle.evidence() == ()
    verification = verify_bundle(tmp_path / "bundle", seed=0, time_limit_s=0.5)
    assert verification.ok and verification.latency is None
    assert any("not verified on a device" in check.text for check in verification.checks)


def test_a_precision_that_no_bundle_holds_is_one_line(outcome, measured_as, tmp_path):
    measured_as(Target(backend="openvino", precision="bf16"))
    with pytest.raises(UserError, match="holds fp32 and int8, not bf16"):
        export(outcome.out / "search", ExportConfig(), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
