"""Export as stages: a trained network whose images leave early for real, in real sessions."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deploy_helpers import Budget, again
from staged_helpers import digits, export_staged, preprocessing, trained

from nat2deploy.cli.render_stages import print_stages
from nat2deploy.deploy import stages as stages_module
from nat2deploy.deploy.bench import bench
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.exit_answers import answers_of, decided
from nat2deploy.deploy.made import measure
from nat2deploy.deploy.making import EngineOptions
from nat2deploy.deploy.opening import open_bundle_engine
from nat2deploy.deploy.runner.expected import expected_cost
from nat2deploy.deploy.verify import Measured, judge, verify_bundle
from nat2deploy.errors import UserError
from nat2deploy.measure.statistics import Summary
from nat2deploy.target import Target


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A bundle that may lose two points; read only."""
    out = tmp_path_factory.mktemp("bundles") / "staged"
    export_staged(out, {"accuracy_drop": 0.02})
    return out


@pytest.fixture
def staged(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "staged"))


def opened(path):
    with open_bundle(path) as bundle:
        bundle.check()
        return bundle.manifest, bundle.evidence(), open_bundle_engine(bundle)[0]


def test_images_leave_early_within_the_accuracy_asked_for(made):
    manifest, _, engine = opened(made)
    stages = manifest.stages
    assert stages.validation.top1 >= stages.validation.ensemble_top1 - 0.02 - 1e-9
    assert stages.validation.ensemble_top1 > 0.9
    assert min(stages.validation.shares[0], stages.test.shares[0]) > 0.1
    answers = answers_of(engine, preprocessing(), digits().test.images)
    thresholds = [stage.threshold for stage in stages.exits[:-1]]
    classes, shares = decided(answers, stages.confidence, thresholds)
    targets = digits().test.targets.numpy()
    assert manifest.evidence.accuracy.top1 == stages.test.top1 == float(np.mean(classes == targets))
    assert stages.test.ensemble_top1 == float(np.mean(answers[-1].argmax(1) == targets))
    assert stages.test.shares == shares and sum(shares) == pytest.approx(1)
    assert stages.by == "macs"  # without a table


def test_all_stages_say_what_the_ensemble_says_and_each_exit_its_part(made):
    _, _, engine = opened(made)
    images = preprocessing().apply(digits().test.images[:50])
    network = trained()
    with torch.no_grad():
        exits, whole = network.exit_logits(images), network(images)
    answers = answers_of(engine, preprocessing(), digits().test.images[:50])
    np.testing.assert_allclose(answers[-1], whole.numpy(), rtol=1e-4, atol=1e-4)
    weights = network.exit_weights
    for count in range(1, 4):
        mean = sum(w * one for w, one in zip(weights[:count], exits, strict=False)) / weights[:count].sum()
        np.testing.assert_allclose(answers[count - 1], mean.numpy(), rtol=1e-4, atol=1e-4)


def test_the_bundle_holds_a_graph_a_stage_and_costs_that_rise(made):
    manifest, (here,), _ = opened(made)
    files = [stage.file for stage in manifest.stages.exits]
    assert files == ["stage1.onnx", "stage2.onnx", "stage3.onnx"]
    assert manifest.model == files[0] and not (made / "model.onnx").exists()
    first, _, last = (onnx.load(made / name).graph for name in files)
    assert [value.name for value in first.output] == ["output", "features"]
    assert [value.name for value in last.output] == ["output"]
    macs = [stage.costs.macs for stage in manifest.stages.exits]
    assert macs == sorted(set(macs)) and macs[-1] == manifest.costs.macs
    medians = [one.median_ms for one in here.stages.exits]
    assert here.latency.median_ms == medians[-1]
    assert here.stages.expected_ms == pytest.approx(expected_cost(manifest.stages.test.shares, medians))
    assert here.stages.expected_ms < here.latency.median_ms


def test_the_sweep_shows_what_else_could_have_been_chosen(made):
    stages = opened(made)[0].stages
    assert len(stages.sweep) > 3
    top1 = [point.top1 for point in stages.sweep]
    assert top1 == sorted(set(top1))
    assert top1[0] < stages.validation.top1 <= top1[-1]


def test_the_same_export_gives_the_same_bytes(made, tmp_path):
    export_staged(tmp_path / "again", {"accuracy_drop": 0.02})
    names = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
    for name in names:
        same = (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert same == (name.name != "evidence.json"), name


def test_an_expected_latency_is_kept_by_what_was_measured(tmp_path, made, monkeypatch):
    # What was measured of the other bundle, for a machine may become slower between two measurements.
    medians = [one.median_ms for one in opened(made)[1][0].stages.exits]
    measured_as(monkeypatch, lambda exits, _: [medians[number - 1] for number in exits])
    limit = (2 * medians[0] + medians[-1]) / 3
    manifest = export_staged(tmp_path / "out", {"expected_latency_ms": limit})
    _, (here,), _ = opened(tmp_path / "out")
    stages = manifest.stages
    assert (stages.by, stages.expected_ms) == ("measured latency", limit)
    exits = [one.median_ms for one in here.stages.exits]
    # With room for what other images may take longer.
    room = (exits[-1] - exits[0]) / 2 / np.sqrt(stages.validation.images)
    assert expected_cost(stages.validation.shares, exits) <= max(limit - room, exits[0]) + 1e-9


def test_an_accuracy_can_be_asked_for_by_itself(tmp_path):
    manifest = export_staged(tmp_path / "out", {"top1": 0.5, "confidence": "margin"}, time_limit_s=None)
    # The first exit alone is good enough, so nobody comes to the second.
    assert manifest.stages.validation.shares == (1.0, 0.0) and manifest.stages.merged == (2,)
    assert manifest.stages.validation.top1 >= 0.5
    assert (manifest.stages.confidence, manifest.stages.target) == ("margin", "top-1 >= 50 %")
    assert [stage.threshold for stage in manifest.stages.exits] == [0.0, None]
    assert opened(tmp_path / "out")[1] == ()


def test_exits_at_which_nobody_leaves_are_merged_and_count_in_the_ensemble(tmp_path, made, capsys):
    manifest = export_staged(tmp_path / "out", {"top1": 0.5})
    stages, whole = manifest.stages, opened(made)[0].stages
    assert [stage.file for stage in stages.exits] == ["stage1.onnx", "stage2.onnx"]
    assert [stage.weight for stage in stages.exits] == pytest.approx([0.2, 0.8])
    assert [stage.costs.macs for stage in stages.exits] == [whole.exits[i].costs.macs for i in (0, 2)]
    _, (here,), engine = opened(tmp_path / "out")
    assert len(here.stages.exits) == 2 and all(len(point.shares) == 2 for point in stages.sweep)
    images = preprocessing().apply(digits().test.images[:50])
    with torch.no_grad():
        expected = torch.stack([trained().exit_logits(images)[0], trained()(images)])
    answers = answers_of(engine, preprocessing(), digits().test.images[:50])
    np.testing.assert_allclose(answers, expected.numpy(), rtol=1e-4, atol=1e-4)
    assert verify_bundle(tmp_path / "out", seed=0, time_limit_s=0.3).ok
    print_stages(stages, [here.stages])
    assert "the network's exits 2: too few left" in " ".join(capsys.readouterr().out.split())


def test_where_no_early_exit_pays_there_is_one_graph(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        measured_as(patch, exits_of((1.0, 1.0, 1.0), 1e6))
        manifest = export_staged(tmp_path / "out", {"expected_latency_ms": 3.0})
    stages = manifest.stages
    # 3 ms are enough for all stages in one graph, and for nobody to stay behind a cut.
    assert stages.merged == (1, 2) and stages.validation.shares == (1.0,)
    assert stages.validation.top1 == stages.validation.ensemble_top1
    assert [stage.file for stage in stages.exits] == ["stage1.onnx"]
    assert verify_bundle(tmp_path / "out", seed=0, time_limit_s=0.3).ok
    command = [sys.executable, tmp_path / "out" / "run.py", "--check"]
    subprocess.run(command, check=True, capture_output=True)


def measured_as(monkeypatch, medians):
    """Let exits take what ``medians(network's exits, chain's place)`` says, in ms."""

    def scripted(chains, given, confidence=None):
        found = []
        for place, chain in enumerate(chains):
            one = measure({"all": chain.engine}, given.seed, 0.1)[0]
            times = medians(chain.plan.numbers, place)
            found.append([one.model_copy(update={"median_ms": time}) for time in times])
        return found

    monkeypatch.setattr(stages_module, "_latencies", scripted)


def exits_of(costs, cut):
    """What exits take where each stage costs so much, and each cut between stages so much more."""
    return lambda exits, _: [sum(costs[:exit_]) + cut * place for place, exit_ in enumerate(exits)]


def test_an_exit_whose_cut_costs_little_stays(tmp_path, monkeypatch):
    measured_as(monkeypatch, exits_of((1.0, 1.0, 1.0), 0.001))
    manifest = export_staged(tmp_path / "out", {"expected_latency_ms": 1.4}, time_limit_s=0.1)
    stages = manifest.stages
    assert 1 not in stages.merged and stages.validation.shares[0] > 0.3
    left = [exit_ for exit_ in (1, 2, 3) if exit_ not in stages.merged]
    costs = exits_of((1.0, 1.0, 1.0), 0.001)(left, 0)
    assert expected_cost(stages.validation.shares, costs) <= 1.4 + 1e-9


def test_8_bits_stop_early_too_and_are_calibrated_a_stage(tmp_path):
    manifest = export_staged(
        tmp_path / "out",
        {"accuracy_drop": 0.02},
        target=Target(precision="int8"),
        calibration_images=digits().train.images[:64],
        options=EngineOptions(max_accuracy_drop=0.03),
    )
    stages = manifest.stages
    assert manifest.quantisation.calibration_images == 64
    assert manifest.quantisation.top1 >= manifest.quantisation.float_top1 - 0.03 - 1e-9
    assert stages.test.top1 == pytest.approx(trained_top1(), abs=0.06)
    assert stages.test.shares[0] > 0.05
    for stage in stages.exits:
        kinds = {node.op_type for node in onnx.load(tmp_path / "out" / stage.file).graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert verify_bundle(tmp_path / "out", seed=0, time_limit_s=0.3).ok


def trained_top1() -> float:
    with torch.no_grad():
        found = trained()(preprocessing().apply(digits().test.images)).argmax(1)
    return float((found == digits().test.targets).float().mean())


@pytest.mark.parametrize(
    ("goal", "changes", "words"),
    [
        ({"top1": 1.0}, {}, r"no thresholds reach it on the \d+ validation images, the nearest 9"),
        ({"expected_latency_ms": 1e-6}, {}, "the first exit alone takes"),
        ({"expected_latency_ms": 1.0}, {"time_limit_s": None}, "neither measured here"),
        ({"top1": 0.5, "accuracy_drop": 0.1}, {}, "exclude each other"),
        ({}, {"target": Target(backend="openvino")}, "stages run in ONNX Runtime on the CPU, not on"),
        ({}, {"validation": None}, "no validation images"),
    ],
)
def test_what_cannot_be_had_is_one_line(tmp_path, goal, changes, words):
    with pytest.raises(UserError, match=words):
        export_staged(tmp_path / "out", goal, **changes)
    assert not (tmp_path / "out").exists()


def test_verifying_checks_each_exit_and_the_expected_latency(staged):
    found = verify_bundle(staged, seed=0, time_limit_s=0.3)
    assert found.ok
    assert [check.name for check in found.checks] == ["files", "parity", "latency", "expected"]
    assert "all stages, the worst case" in found.checks[2].text
    assert len(found.exits) == 3 and found.latency.median_ms == found.exits[-1].median_ms
    assert found.expected_ms < found.latency.median_ms
    json.dumps(found.expected_ms)


def test_a_latency_budget_is_held_against_all_stages(staged):
    def limited(value):
        value["budgets"] = [vars(Budget("latency<=0.00001ms", "latency_ms", 1e-5))]

    again(staged, limited)
    failed = verify_bundle(staged, seed=0, time_limit_s=0.3)
    assert not failed.ok
    assert "of 1e-05 ms, all stages" in failed.checks[-1].text


def test_an_expected_latency_that_is_missed_fails(staged):
    def limited(value):
        value["stages"]["expected_ms"] = 1e-5

    again(staged, limited)
    failed = verify_bundle(staged, seed=0, time_limit_s=0.3)
    assert [check.name for check in failed.checks if not check.ok] == ["expected"]


def test_an_expected_latency_is_missed_where_its_whole_interval_lies_above(staged):
    manifest, (here,), _ = opened(staged)
    machine, parity = here.latency.fingerprint, here.parity

    def verified(limit):
        stages = manifest.stages.model_copy(update={"expected_ms": limit})
        changed = manifest.model_copy(update={"stages": stages})
        found = judge(changed, [], machine, parity, Measured(exits[-1], True, exits))
        return next(check for check in found.checks if check.name == "expected")

    exits = tuple(Summary(ms, ms, ms, 0.99 * ms, 1.01 * ms, 9, 9) for ms in (1.0, 2.0, 3.0))
    shares, images = np.array(manifest.stages.shares), manifest.stages.test.images
    mean = shares @ [1.0, 2.0, 3.0]
    off = 0.01 * mean + 1.96 * np.sqrt(shares @ np.square(np.array([1.0, 2.0, 3.0]) - mean) / images)
    assert verified(mean - off + 1e-6).ok and not verified(mean - off - 1e-6).ok
    assert f"{mean:.3f} ms ± {off:.3f} of 1 ms" in verified(1.0).text


def test_an_exit_that_says_something_else_fails(staged):
    model = onnx.load(staged / "stage2.onnx")
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    bias = next(one for one in model.graph.initializer if one.name == last.input[2])
    bias.CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(bias) * 0 + 5.0 * np.eye(10, dtype=np.float32)[3], bias.name
        )
    )
    onnx.save(model, staged / "stage2.onnx")
    again(staged)
    failed = verify_bundle(staged, seed=0, time_limit_s=0.3)
    assert [check.name for check in failed.checks if not check.ok] == ["parity"]


def test_a_bench_shows_expected_and_worst_case_with_the_shares_of_this_run(staged):
    row, other = bench([str(staged), "torchvision:squeezenet1_1@32"], seed=0, time_limit_s=1.0, data="digits")
    manifest, _, _ = opened(staged)
    early = row.early_exits
    assert early.shares == manifest.stages.test.shares
    assert row.accuracy.top1 == manifest.evidence.accuracy.top1
    assert row.median_ms == early.exits_ms[-1]
    assert early.expected_ms == pytest.approx(expected_cost(early.shares, early.exits_ms))
    assert early.expected_low_ms <= early.expected_ms <= early.expected_high_ms
    assert row.peak_memory_mb > 10
    assert other.early_exits is None


def test_a_batch_goes_on_until_its_last_image_has_left(tmp_path):
    manifest = export_staged(tmp_path / "out", {"accuracy_drop": 0.02}, target=Target(batch=4))
    _, (here,), _ = opened(tmp_path / "out")
    medians = [one.median_ms for one in here.stages.exits]
    shares = manifest.stages.test.shares
    assert here.stages.expected_ms == pytest.approx(expected_cost(shares, medians, 4))
    assert here.stages.expected_ms > expected_cost(shares, medians)
