from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from deploy_helpers import LABELS, Costs, make_images, make_net
from torch import Tensor, nn

from nat2deploy.data.preprocess import Preprocessing
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.parity import MAX_DIFFERENCE
from nat2deploy.deploy.reference import load_reference
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.errors import UserError
from nat2deploy.target import Target, fingerprint

Export = Callable[..., Manifest]
INT8 = Target(precision="int8")


def test_the_model_file_says_what_the_module_says(exported: Path) -> None:
    session = ort.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    spec = Preprocessing(resolution=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    inputs = spec.apply(make_images())
    found = np.concatenate([session.run(["output"], {"input": one[None].numpy()})[0] for one in inputs])
    expected = make_net()(inputs).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    images, logits = load_reference(exported / "reference.npz")
    assert torch.equal(images, make_images())
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_other_files(exported: Path) -> None:
    assert (exported / "labels.txt").read_text(encoding="utf-8").splitlines() == list(LABELS)
    readme = (exported / "README.txt").read_text(encoding="utf-8")
    assert "python run.py IMAGE.png" in readme and "abc123" in readme and "75.00% on 40" in readme
    with open_bundle(exported) as bundle:
        bundle.check()
        (measured,) = bundle.evidence()
        assert measured.device == "here" and measured.parity == bundle.manifest.evidence.parity
        assert measured.latency.fingerprint.same_machine(fingerprint())


def test_a_zip_can_be_made_and_evidence_left_out(export: Export, tmp_path: Path) -> None:
    manifest = export(tmp_path / "out.zip", test=None, costs=Costs(latency_ms=None), budgets=())
    assert manifest.evidence.accuracy is None and manifest.costs.latency_ms is None
    assert zipfile.is_zipfile(tmp_path / "out.zip")
    with open_bundle(tmp_path / "out.zip") as bundle:
        bundle.check()
        assert bundle.manifest == manifest


def test_nothing_is_measured_for_another_machine(export: Export, tmp_path: Path) -> None:
    manifest = export(tmp_path / "out", target=Target(threads=64), time_limit_s=None)
    assert manifest.target.threads == 64
    with open_bundle(tmp_path / "out") as bundle:
        assert bundle.evidence() == ()


def test_the_module_is_left_as_it_was(export: Export) -> None:
    net = make_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export(module=net)
    assert net.training and all(part.training for part in net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_bigger_batch_is_exported_as_such(export: Export) -> None:
    assert export(target=Target(batch=5)).input.shape == (5, 3, 16, 16)


def test_an_int8_bundle_holds_8_bits_and_passes_its_own_checks(export: Export, tmp_path: Path) -> None:
    manifest = export(target=INT8, calibration_images=make_images(40))
    assert manifest.target == INT8
    assert manifest.evidence.parity.max_difference > MAX_DIFFERENCE["fp32"]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert {node.op_type for node in model.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    assert verify_bundle(tmp_path / "out", seed=0, time_limit_s=0.3).ok
    words = [sys.executable, str(tmp_path / "out" / "run.py"), "--check"]
    assert subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_int8_without_calibration_is_refused(export: Export, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs calibration images"):
        export(target=INT8)
    assert not (tmp_path / "out").exists()


def test_an_int8_engine_that_lost_its_way_is_refused(export: Export, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="8 bits are too few"):
        export(target=INT8, calibration_images=torch.full((4, 3, 20, 28), 102, dtype=torch.uint8))
    assert not (tmp_path / "out").exists()


class Liar(nn.Module):
    """Says something else while it is exported than when it is asked."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.net, self.by = make_net(), by

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        return y * (1 + self.by) if torch.onnx.is_in_onnx_export() else y


def test_an_engine_that_differs_is_refused(export: Export, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not agree with PyTorch"):
        export(module=Liar(0.01))
    assert not (tmp_path / "out").exists()
    export(module=Liar(1e-4))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": Target(backend="torch")}, "--engine onnxruntime"),
        ({"labels": LABELS[:2]}, "2 labels"),
        ({"labels": ("a", "b\nc", "d")}, "line break"),
        ({"labels": ("a", " ", "d")}, "is empty"),
        ({"reference_images": torch.zeros(0, 3, 4, 4, dtype=torch.uint8)}, "reference images"),
        ({"reference_images": torch.zeros(2, 3, 4, 4)}, "reference images"),
        ({"preprocessing": Preprocessing(resolution=8, mean=(0, 0, 0), std=(1, 1, 1))}, "8, 8"),
    ],
)
def test_bad_input_is_refused(export: Export, tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        export(**changes)
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_place_that_is_taken_is_refused_before_any_work(export: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dear.txt").write_text("dear")
    with pytest.raises(UserError, match="not a bundle"):
        export(module=nn.Identity())
