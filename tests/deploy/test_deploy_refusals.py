"""Bundles that are not what they were: each command that takes one says why in one line, with exit code 2."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nat2deploy.cli import main
from nat2deploy.deploy.zipped import pack


def edit(bundle: Path, change: Callable[[dict], object]) -> Path:
    """Change the manifest as somebody with an editor would."""
    path = bundle / "manifest.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    return bundle


def changed_byte(bundle: Path) -> Path:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    return bundle


def truncated(bundle: Path) -> Path:
    path = bundle.with_suffix(".zip")
    pack(bundle, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def escaping(bundle: Path) -> Path:
    path = bundle.with_suffix(".zip")
    pack(bundle, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.py", "evil")
    return path


SPOILED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a changed byte": (changed_byte, "model.onnx is changed (hash differs)"),
    "an edited manifest": (
        lambda bundle: edit(bundle, lambda value: value.update(network="other")),
        "manifest.json is changed (hash differs)",
    ),
    "a path that escapes": (
        lambda bundle: edit(bundle, lambda value: value["files"].update({"../evil": "0" * 64})),
        "not a plain relative path",
    ),
    "a zip entry that escapes": (escaping, "not a plain relative path"),
    "a truncated zip": (truncated, "is not a zip that can be read"),
    "a wrong schema": (
        lambda bundle: edit(bundle, lambda value: value.update(schema_version=99)),
        "schema_version",
    ),
    "a field too many": (lambda bundle: edit(bundle, lambda value: value.update(surprise=1)), "surprise"),
    "another target": (
        lambda bundle: edit(bundle, lambda value: value["target"].update(threads=3)),
        "manifest.json is changed (hash differs)",
    ),
    "a target in 8 bits": (
        lambda bundle: edit(bundle, lambda value: value["target"].update(precision="int8")),
        "int8 without a quantisation",
    ),
    "an input of another size": (
        lambda bundle: edit(bundle, lambda value: value["input"]["shape"].__setitem__(3, 64)),
        "is not what preprocessing to",
    ),
    "a model in a folder": (
        lambda bundle: edit(
            bundle,
            lambda value: value.update(
                model="m/model.onnx", files=value["files"] | {"m/model.onnx": "0" * 64}
            ),
        ),
        "the model m/model.onnx lies in a folder of its own",
    ),
    "a bundle of before": (
        lambda bundle: edit(bundle, lambda value: value.update(schema_version=1)),
        "is of schema_version 1, of before evidence.json; export it again",
    ),
    "a target that bundles cannot be for": (
        lambda bundle: edit(bundle, lambda value: value["target"].update(device="cuda:0", backend="torch")),
        "a bundle does not run on cuda:0 torch",
    ),
}


@pytest.mark.parametrize("verb", ["verify", "bench"])
@pytest.mark.parametrize("name", list(SPOILED))
def test_is_refused_in_one_line(
    bundle: Path, name: str, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = SPOILED[name]
    monkeypatch.setattr(sys, "argv", ["nat2deploy", verb, str(spoil(bundle))])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and " ".join(words.split()) in line
    assert not (bundle.parent / "evil.py").exists()
