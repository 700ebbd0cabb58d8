"""Exporting a run's network with several exits as stages, as a user asks for it."""

import json
from dataclasses import replace

import pytest
from early_run import make_run

from nat2deploy.cost.model import CostModel
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.errors import UserError
from nat2deploy.report.write import write_report
from nat2deploy.run.config import ExportConfig, load_pipeline
from nat2deploy.run.export import export
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.run.finetune_report import FinetuneReport, Judged
from nat2deploy.run.front import load_front
from nat2deploy.run.networks import open_network
from nat2deploy.run.stages import stages_plan


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its front holds a network of one exit, and one of three; the weights are untrained."""
    return make_run(tmp_path_factory.mktemp("several"), exits="several")


def ids(run):
    return [network.id for network in load_front(run / "front.json").networks]


@pytest.fixture
def refused(command):
    """Run what is bad input; returns the line that says so."""

    def run(*words):
        code, _, complaint = command(*words)
        lines = complaint.strip().splitlines()
        assert code == 2 and len(lines) == 1, complaint
        return lines[0]

    return run


def test_the_command_line_makes_stages_and_the_report_shows_them(run, tmp_path, command):
    out = tmp_path / "bundle"
    words = ["export", run, "--network", ids(run)[1], "--stages", "--stage-accuracy-drop", "2%", "--out", out]
    code, said, _ = command(*words, "--json")
    assert code == 0
    stages = json.loads(said)["stages"]
    assert stages["target"] == "top-1 >= the ensemble's - 2 points"
    assert stages["by"] == "predicted latency"
    predicted = [stage["costs"]["latency_ms"] for stage in stages["exits"]]
    assert predicted == sorted(set(predicted))
    with open_bundle(out) as bundle:
        bundle.check()
        assert bundle.manifest.costs.latency_ms == predicted[-1]
    written = write_report(run, tmp_path / "report.html", out)
    assert written.problems == ()
    assert "early-exits" in {path.stem for path in written.pictures}
    page = written.report.read_text()
    assert "<h3>Early exits</h3>" in page and "the ensemble&#39;s - 2 points" in page


def test_people_see_thresholds_shares_and_costs(run, tmp_path, command):
    words = ["export", run, "--network", ids(run)[1], "--stages", "--confidence", "entropy"]
    code, said, _ = command(*words, "--out", tmp_path / "out.zip")
    assert code == 0
    assert "stages   3, for top-1 >= the ensemble's - 0.5 points; sure by entropy" in said
    assert "with all stages" in said


def test_the_latency_of_another_machine_is_kept_as_it_is_predicted(run, tmp_path):
    network = ids(run)[1]
    slow = ExportConfig(network=network, stages=True)
    predicted = [stage.costs.latency_ms for stage in export(run, slow, tmp_path / "a").stages.exits]
    limit = (predicted[0] + predicted[-1]) / 2
    config = ExportConfig(network=network, stages=True, expected_latency=f"{1000 * limit:.6f}us")
    stages = export(run, config, tmp_path / "b").stages
    assert stages.by == "predicted latency"
    shares = stages.validation.shares
    assert sum(share * ms for share, ms in zip(shares, predicted, strict=True)) <= limit + 1e-6


def test_a_network_with_one_exit_is_refused_in_one_line(run, tmp_path, refused):
    words = ("export", run, "--network", ids(run)[0], "--stages", "--out", tmp_path / "out")
    assert "has one exit" in refused(*words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--expected-latency", "0.1ms"], "--confidence are for --stages; add that"),
        (["--stages", "--expected-latency", "fast"], "write a latency, such as 0.15ms"),
        (["--stages", "--expected-latency", "1ms", "--stage-accuracy", "90%"], "give one of"),
        (["--stages", "--stage-accuracy", "0.9"], "write a percentage"),
        (["--stages", "--confidence", "mood"], "confidence"),
        (["--stages", "--engine", "tensorrt"], "--stages: they run in onnxruntime on the CPU"),
        (["--stages", "--save-optimised"], "stages have several"),
    ],
)
def test_what_does_not_fit_is_one_line(run, tmp_path, refused, words, said):
    line = refused("export", run, "--out", tmp_path / "out", *words)
    assert said in line


def test_a_network_that_saw_the_validation_images_is_refused(run):
    chosen, data = open_network(run, ids(run)[1])
    judged = Judged(top1=0.5, low=0.4, high=0.6, images=10)
    report = FinetuneReport(
        id=chosen.front.id,
        version=0,
        config=FinetuneConfig(phases=2),
        validation_before=judged,
        validation_after=judged,
        test=judged,
        kept=True,
    )
    model = CostModel(chosen.info.space, data.classes, None)
    config = ExportConfig(stages=True)
    with pytest.raises(UserError, match=r"--phases 2.*--phases 1"):
        stages_plan(config, replace(chosen, report=report), chosen.network, model)
    left = report.model_copy(update={"kept": False})
    assert len(stages_plan(config, replace(chosen, report=left), chosen.network, model).modules) == 3


def test_a_pipeline_asks_for_stages_like_for_other_exports(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('data = "digits"\n[export]\nstages = true\nexpected_latency = "0.15ms"\n')
    config = load_pipeline(path).export
    assert config.stages and config.expected_latency_ms == pytest.approx(0.15)
    path.write_text('data = "digits"\n[export]\nstage_accuracy = 0.9\n')
    with pytest.raises(UserError, match=r"export.*stages"):
        load_pipeline(path)
