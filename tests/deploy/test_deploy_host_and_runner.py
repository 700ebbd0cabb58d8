"""What a bundle's own runner refuses, verification on the host refuses, too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from deploy_helpers import make_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from staged_helpers import export_staged

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.evidence import write_evidence
from nat2deploy.deploy.runner.network import Network
from nat2deploy.deploy.runner.proof import check
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.deploy.verify import verify_bundle
from nat2deploy.errors import UserError
from nat2deploy.target import Target

PLACES = {
    ("output", "labels"): [[], ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]],
    ("output", "name"): ["output", "logits", "input", ""],
    ("input", "name"): ["input", "image", "output"],
    ("input", "shape"): [[1, 3, 16, 16], [1, 1, 16, 16], [1, 3, 16, 17], [1, 3, 8, 8], [2, 3, 16, 16], [3]],
    ("input", "preprocessing", "resolution"): [16, 8, 0, 5000],
    ("target", "batch"): [1, 2],
    ("target", "threads"): [1, 0, 2000],
    ("target", "backend"): ["onnxruntime", "tensorrt", "torch"],
    ("engine", "batches"): [[1, 1, 1], [1, 1, 8], [2, 2, 2], [4, 1, 1]],
    ("engine",): [None],
    ("model",): ["model.onnx", "runner/run.py", "labels.txt", "gone.onnx"],
}
CHANGES = [(place, value) for place, values in PLACES.items() for value in values]


def change(folder: Path, *changes: tuple[tuple[str, ...], Any]) -> None:
    """Write a manifest as nat2deploy itself would not, with evidence that fits it."""
    with open_bundle(folder) as bundle:
        evidence = bundle.evidence()
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for place, value in changes:
        inside = manifest
        for name in place[:-1]:
            inside = inside[name] or {}
        inside[place[-1]] = value
    path.write_text(json.dumps(manifest))
    write_evidence(folder, evidence)


def runs(folder: Path) -> bool:
    try:
        return bool(check(Network(folder, None))["ok"])
    except BadInput:
        return False


def refusal(folder: Path) -> str:
    """What verification says in one line; empty where it passes."""
    try:
        found = verify_bundle(folder, seed=0, time_limit_s=0.1)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return "" if found.checks[1].ok else found.checks[1].text


@pytest.mark.parametrize(("place", "value"), CHANGES)
def test_host_and_runner_agree_on_a_changed_manifest(bundle: Path, place, value) -> None:
    change(bundle, (place, value))
    if runs(bundle):
        # The host alone looks at these.
        assert not refusal(bundle) or place in (("target", "batch"), ("engine", "batches"))
    else:
        assert refusal(bundle)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.sampled_from(CHANGES), min_size=2, max_size=4))
def test_what_the_runner_refuses_the_host_refuses(exported: Path, changes: list) -> None:
    with TemporaryDirectory() as name:
        folder = Path(shutil.copytree(exported, Path(name) / "bundle"))
        change(folder, *changes)
        assert runs(folder) or refusal(folder)


def test_8_bits_need_to_be_described(export, tmp_path: Path) -> None:
    export(target=Target(precision="int8"), calibration_images=make_images(8), test=None, budgets=())
    assert runs(tmp_path / "out") and not refusal(tmp_path / "out")
    change(tmp_path / "out", (("quantisation",), None))
    assert "quantisation" in refusal(tmp_path / "out")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "staged"
    export_staged(out, {"accuracy_drop": 0.02})
    return out


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("output", "name"), "features", "has no output 'features'"),
        (("output", "name"), "logits", "has no output 'logits'"),
        (("input", "name"), "image", "has no input 'image'"),
        (("output", "labels"), ["a"], "1 labels for 10 classes"),
    ],
)
def test_stages_need_their_names_too(staged: Path, tmp_path: Path, place, value, words: str) -> None:
    folder = Path(shutil.copytree(staged, tmp_path / "staged"))
    assert runs(folder) and not refusal(folder)
    change(folder, (place, value))
    assert not runs(folder) and words in refusal(folder)
