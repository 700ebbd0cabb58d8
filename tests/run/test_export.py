"""Export of a run whose table is of another target."""

import shutil

import numpy as np
import pytest
from pydantic import ValidationError

from nat2deploy.cost.table import load_table
from nat2deploy.data.load import load_data
from nat2deploy.deploy import quantised
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.parity import run_all
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.engines.registry import has_gpu, load_engine
from nat2deploy.errors import UserError
from nat2deploy.files import read_json
from nat2deploy.progress import REMARK
from nat2deploy.run import cost_source
from nat2deploy.run import export as export_module
from nat2deploy.run.config import ExportConfig
from nat2deploy.run.export import elsewhere, export
from nat2deploy.target import Gpu, Target

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
    said = []
    manifest = export(outcome.out / "search", config, tmp_path / "bundle", lambda *words: said.append(words))
    assert (REMARK, 1.0, 1.0, "latency was not measured: cuda:0 is not here") in said
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


FASTER = ("--precision", "int8", "--int8-layers", "faster", "--max-accuracy-drop", "100%")


@pytest.mark.parametrize("kept", [2, None])
def test_layers_that_are_not_faster_in_8_bits_stay_in_float_and_are_named(
    outcome, command, monkeypatch, tmp_path, kept
):
    def slower(quantiser, measure, **_):
        return tuple(quantiser.layers)[:kept]

    monkeypatch.setattr(quantised, "slower_in_8_bits", slower)
    code, printed, error = command("export", outcome.out / "search", "--out", tmp_path / "bundle", *FASTER)
    assert code == 0, error
    made = read_json(tmp_path / "bundle" / "manifest.json", "manifest")["quantisation"]
    told = " ".join(printed.split())
    if kept is None:
        assert f"in float all {made['layers']} layers, for latency" in told
    else:
        assert f"in float for latency: {', '.join(made['slower_layers'])}" in told
        assert len(made["slower_layers"]) == kept
    assert "for accuracy" not in told


def test_faster_layers_are_refused_where_none_gets_8_bits(outcome, command, tmp_path):
    words = ("export", outcome.out / "search", "--out", tmp_path / "bundle", "--int8-layers")
    for value, told in (
        ("faster", "--int8-layers: the bundle is in fp32; add --precision int8"),
        ("some", "--int8-layers: Input should be 'all' or 'faster'"),
    ):
        code, _, error = command(*words, value)
        assert code == 2 and told in " ".join(error.split())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--qat-epochs", "5"),
        ("--calibration-method", "entropy"),
        ("--calibration-images", "64"),
        ("--max-accuracy-drop", "1%"),
        ("--qat-learning-rate", "0.0005"),
        ("--seed", "7"),
    ],
)
def test_options_for_8_bits_are_refused_where_none_are_used(outcome, command, tmp_path, words):
    code, _, error = command("export", outcome.out / "search", "--out", tmp_path / "bundle", *words)
    assert code == 2 and f"{words[0]}: the bundle is in fp32; add --precision int8" in " ".join(error.split())
    assert not (tmp_path / "bundle").exists()


def test_a_rate_for_tuning_that_is_not_asked_for_is_refused(outcome, command, tmp_path):
    words = ("--precision", "int8", "--qat-learning-rate", "0.0005", "--out", tmp_path / "bundle")
    code, _, error = command("export", outcome.out / "search", *words)
    assert code == 2 and "--qat-learning-rate: nothing is tuned for 8 bits; add --qat-epochs" in error
    assert not (tmp_path / "bundle").exists()


def test_a_batch_that_was_not_searched_for_has_no_budget_on_latency(outcome, tmp_path):
    one = export(outcome.out / "search", ExportConfig(), tmp_path / "one")
    eight = export(outcome.out / "search", ExportConfig(batch="8"), tmp_path / "eight")
    assert [b.metric for b in one.budgets] == ["latency_ms", "params"]
    assert [b.metric for b in eight.budgets] == ["params"]


def test_faster_layers_of_another_machine_are_refused_before_tuning(outcome, monkeypatch, tmp_path):
    table = load_table(outcome.out / "table.json")
    board = table.fingerprint.model_copy(update={"cpu": "A board"})
    target = Target(precision="int8")
    other = table.model_copy(update={"target": target, "fingerprint": board})
    monkeypatch.setattr(cost_source, "load_table", lambda path: other)
    monkeypatch.setattr(export_module, "tuned_network", lambda *_: pytest.fail("it tunes for hours"))
    with pytest.raises(UserError, match="the table is of another machine"):
        export(
            outcome.out / "search", ExportConfig(int8_layers="faster", qat_epochs=5.0), tmp_path / "bundle"
        )


def test_a_bundle_of_another_machines_table_is_not_measured_and_one_line_says_why(
    outcome, monkeypatch, tmp_path
):
    table = load_table(outcome.out / "table.json")
    board = table.model_copy(update={"fingerprint": table.fingerprint.model_copy(update={"cpu": "A board"})})
    monkeypatch.setattr(cost_source, "load_table", lambda path: board)
    limits, said = [], []

    def make(*_, time_limit_s, **more):
        limits.append(time_limit_s)
        return outcome.manifest

    monkeypatch.setattr(export_module, "export_bundle", make)
    export(outcome.out / "search", ExportConfig(), tmp_path / "bundle", lambda *words: said.append(words))
    (told,) = [words[3] for words in said if words[0] == REMARK]
    assert limits == [None]
    assert told.startswith("latency was not measured: the run's table is of another machine (A board, ")
    assert f"than this one ({table.fingerprint.cpu}, " in told and "\n" not in told


def test_a_gpus_table_of_this_machine_does_not_keep_its_cpu_from_being_measured(outcome):
    table = load_table(outcome.out / "table.json")
    gpu = Gpu(name="A GPU", compute_capability="9.0", memory_bytes=8)
    ours = table.model_copy(update={"fingerprint": table.fingerprint.model_copy(update={"gpu": gpu})})
    assert elsewhere(ours, Target()) == ""
    other = ours.fingerprint.model_copy(update={"cpu": "A board"})
    assert "A GPU" in elsewhere(ours.model_copy(update={"fingerprint": other}), Target())


def test_an_export_that_ends_after_tuning_for_8_bits_trains_no_step_again(outcome, monkeypatch, tmp_path):
    run = tmp_path / "search"
    shutil.copytree(outcome.out / "search", run)
    config = ExportConfig(precision="int8", qat_epochs=0.1, max_accuracy_drop=1.0)
    steps = []

    def tell(stage, done, *_):
        if stage == "fine-tune for int8":
            steps.append(done)

    def refuse(*_, **more):
        raise UserError("accuracy is short")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="accuracy is short"):
        patch.setattr(export_module, "export_bundle", refuse)
        export(run, config, tmp_path / "bundle", tell)
    assert steps and list(run.rglob(".qat"))
    steps.clear()
    other = config.model_copy(update={"calibration_method": "percentile", "max_accuracy_drop": 0.9})
    manifest = export(run, other, tmp_path / "bundle", tell)
    assert steps == [] and not list(run.rglob(".qat"))
    assert manifest.quantisation.qat_epochs == 0.1
    again = export(run, other, tmp_path / "again", tell)
    assert steps, "its bundle was written, so nothing was kept"
    assert (tmp_path / "again/model.onnx").read_bytes() == (tmp_path / "bundle/model.onnx").read_bytes()
    assert again.evidence.accuracy == manifest.evidence.accuracy


@pytest.mark.parametrize("changed", [{"qat_learning_rate": 0.001}, {"calibration_images": 64}, {"seed": 5}])
def test_another_tuning_for_8_bits_is_not_gone_on_with(outcome, monkeypatch, tmp_path, changed):
    run = tmp_path / "search"
    shutil.copytree(outcome.out / "search", run)
    config = ExportConfig(precision="int8", qat_epochs=0.1, max_accuracy_drop=1.0)
    steps = []

    def tell(stage, done, *_):
        if stage == "fine-tune for int8":
            steps.append(done)

    def refuse(*_, **more):
        raise UserError("seen")

    monkeypatch.setattr(export_module, "export_bundle", refuse)
    for one in (config, config.model_copy(update=changed)):
        steps.clear()
        with pytest.raises(UserError, match="seen"):
            export(run, one, tmp_path / "bundle", tell)
        assert steps


@pytest.mark.parametrize("other", [{"engine": "tensorrt"}, {"device": "cuda"}])
def test_faster_layers_are_measured_on_the_cpu(other):
    with pytest.raises(ValidationError, match="'faster' is for onnxruntime or openvino on the CPU"):
        ExportConfig(int8_layers="faster", **other)
