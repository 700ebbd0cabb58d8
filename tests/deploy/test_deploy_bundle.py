from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.zipped import pack
from nat2deploy.errors import UserError


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught, open_bundle(path) as bundle:
        bundle.check()
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and str(path) in text
    return text


def test_a_good_bundle_passes(exported: Path) -> None:
    with open_bundle(exported) as bundle:
        bundle.check()
        assert bundle.model == exported / "model.onnx"


@pytest.mark.parametrize(
    "name", ["model.onnx", "run.py", "runner/network.py", "labels.txt", "reference.npz", "README.txt"]
)
def test_a_changed_byte_is_found(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    assert refused(bundle) == f"bundle {bundle}: {name} is changed (hash differs); export it again"


def test_a_missing_file_is_found(bundle: Path) -> None:
    (bundle / "labels.txt").unlink()
    assert "labels.txt is missing" in refused(bundle)


def test_an_extra_file_is_found_wherever_it_lies(bundle: Path) -> None:
    (bundle / "deep").mkdir()
    (bundle / "deep" / "sitecustomize.py").write_text("")
    assert "deep/sitecustomize.py is not in its manifest" in refused(bundle)


def test_caches_are_ignored(bundle: Path) -> None:
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "run.cpython-39.pyc").write_bytes(b"")
    with open_bundle(bundle) as opened:
        opened.check()


@pytest.mark.parametrize("name", ["model.onnx", "extra", "__pycache__"])
def test_a_link_is_found_even_to_the_right_bytes(bundle: Path, tmp_path: Path, name: str) -> None:
    place = bundle / name
    if place.exists():
        place.rename(tmp_path / name)
    place.symlink_to(tmp_path / name, target_is_directory=name == "__pycache__")
    assert f"{name} is a link" in refused(bundle)


def test_a_pipe_in_place_of_a_file_does_not_hang(bundle: Path) -> None:
    (bundle / "labels.txt").unlink()
    os.mkfifo(bundle / "labels.txt")
    assert "no plain file" in refused(bundle)


def test_a_zip_is_a_bundle_too_and_leaves_nothing_behind(exported: Path, tmp_path: Path) -> None:
    pack(exported, tmp_path / "tiny.zip")
    with open_bundle(tmp_path / "tiny.zip") as bundle:
        bundle.check()
        folder = bundle.folder
        assert bundle.model.read_bytes() == (exported / "model.onnx").read_bytes()
    assert not folder.exists()


def test_a_tampered_zip_is_found(bundle: Path, tmp_path: Path) -> None:
    (bundle / "run.py").write_text("print('mine')")
    pack(bundle, tmp_path / "tiny.zip")
    assert "run.py is changed" in refused(tmp_path / "tiny.zip")


def test_a_zip_that_was_zipped_by_others_works(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in exported.rglob("*"):
            archive.write(file, file.relative_to(exported))
    with open_bundle(path) as bundle:
        bundle.check()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert "check the path" in refused(tmp_path / "nowhere")
    assert "check the path" in refused(tmp_path)
    (tmp_path / "file").write_text("hello")
    assert "not a zip" in refused(tmp_path / "file")
    (tmp_path / "manifest.json").write_text("[1")
    assert "not JSON" in refused(tmp_path)
    (tmp_path / "manifest.json").write_text("[1]")
    assert "manifest.json" in refused(tmp_path)


def test_a_manifest_that_points_outside_is_refused(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text(encoding="utf-8")
    (bundle / "manifest.json").write_text(text.replace('"model.onnx"', '"../model.onnx"'), encoding="utf-8")
    assert "relative path" in refused(bundle)
