"""The commands of a report that make a bundle again."""

from made_runs import made_manifest, write, write_search

from nat2deploy.report.facts import gather
from nat2deploy.report.reading import read_run
from nat2deploy.report.repeat import commands


def test_a_bundle_whose_exits_were_pruned_is_its_front_networks(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    write(tmp_path / "b" / "manifest.json", made_manifest({**made[2], "id": "pruned"}, origin=made[2]["id"]))
    files = read_run(run, tmp_path / "b")
    assert f"nat2deploy export again --network {made[2]['id']} --precision fp32 --out bundle" in commands(
        files
    )
    (row,) = [row for row in gather(files).rows if row.exported]
    assert row.network.id == made[2]["id"]


def test_a_bundle_is_made_again_as_it_was_made(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    target = {"device": "cpu", "backend": "openvino", "precision": "int8", "threads": 1, "batch": 8}
    quantisation = {
        "method": "entropy",
        "calibration_images": 64,
        "qat_epochs": 2.0,
        "qat_learning_rate": 0.0005,
        "slower_layers": ["a"],
        "max_accuracy_drop": 0.01,
    }
    stages = {
        "confidence": "margin",
        "target": "top-1 >= the ensemble's - 2.5 points",
        "exits": [{}],
        "validation": {"top1": 0.9, "ensemble_top1": 0.9, "shares": [1.0]},
    }
    write(
        tmp_path / "b" / "manifest.json",
        made_manifest(made[2], target_name="pi5", target=target, quantisation=quantisation, stages=stages),
    )
    assert (
        f"nat2deploy export again --network {made[2]['id']} --target pi5 --precision int8 --engine openvino --batch 8 "
        "--calibration-method entropy --calibration-images 64 --qat-epochs 2 --qat-learning-rate 0.0005 --int8-layers faster "
        "--max-accuracy-drop 1% --stages --stage-accuracy-drop 2.5% --confidence margin --out bundle"
    ) in commands(read_run(run, tmp_path / "b"))
