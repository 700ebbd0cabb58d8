from __future__ import annotations

import json
from pathlib import Path

import pytest
from deploy_helpers import LABELS
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.deploy.manifest import Manifest, check_relative
from nat2deploy.deploy.runner_files import runner_files
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json


def manifest_json(bundle: Path) -> dict:
    return read_json(bundle / "manifest.json", "manifest")


def test_holds_what_was_exported(exported: Path) -> None:
    manifest = parse(Manifest, manifest_json(exported), "manifest")
    assert manifest.network == "abc123" and manifest.space == "tiny"
    assert manifest.architecture == {"ks": [3], "r": 16}
    assert manifest.input.shape == (1, 3, 16, 16) and manifest.input.preprocessing.resolution == 16
    assert manifest.output.labels == LABELS
    assert [budget.metric for budget in manifest.budgets] == ["latency_ms", "macs"]
    assert manifest.costs.latency_ms == 0.5
    assert manifest.evidence.accuracy is not None and manifest.evidence.accuracy.split == "test"
    assert manifest.evidence.parity.images == 12 and manifest.evidence.parity.top1_agreement == 1.0
    assert 0 <= manifest.evidence.parity.max_difference < 1e-3
    own = {"model.onnx", "labels.txt", "reference.npz", "README.txt"}
    assert set(manifest.files) == own | set(runner_files())


def test_survives_a_round_trip(exported: Path) -> None:
    manifest = parse(Manifest, manifest_json(exported), "manifest")
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize("path", ["model.onnx", "a/b/c.txt", "..a", "a..b", "é.txt", "a b"])
def test_plain_relative_paths_are_good(path: str) -> None:
    assert check_relative(path) == path


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/", "/etc/passwd", "../a", "a/../b", "a/..", "a//b", "a/", "./a", "a\\b", "C:a", "C:/a",
     "a\0b", "a\nb", "a\x7f", "x" * 201],
)  # fmt: skip
def test_other_paths_are_bad(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        check_relative(path)


@given(st.text(alphabet="./\\ab:", max_size=12))
def test_no_good_path_escapes(path: str) -> None:
    try:
        check_relative(path)
    except ValueError:
        return
    assert (Path("/root") / path).resolve().is_relative_to("/root") and Path(path).parts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 1}, "schema_version"),
        ({"schema_version": 3}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"files": {"../x": "0" * 64}}, "relative path"),
        ({"files": {"model.onnx": "xyz"}}, "files"),
        ({"files": {"run.py": "0" * 64}}, "does not list the model"),
        ({"files": {"model.onnx": "0" * 64, "manifest.json": "0" * 64}}, "itself"),
        ({"model": "/model.onnx"}, "relative path"),
        ({"task": "detection"}, "task"),
        ({"target": {"batch": 2}}, "batch"),
        ({"target": {"device": "cuda", "backend": "torch"}}, "does not run on cuda:0 torch"),
        (
            {
                "files": {"model.onnx": "0" * 64},
                "engine": {"version": "1", "batches": [1, 1, 1], "recipe": "build.py"},
            },
            "build.py",
        ),
        ({"costs": {"macs": -1, "params": 1}}, "macs"),
    ],
)
def test_what_does_not_fit_is_named(exported: Path, change: dict, words: str) -> None:
    value = {**manifest_json(exported), **change}
    with pytest.raises(UserError, match=words):
        parse(Manifest, json.loads(json.dumps(value)), "manifest")
