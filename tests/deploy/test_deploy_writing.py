from __future__ import annotations

import os
from pathlib import Path

import pytest

from nat2deploy.deploy import writing
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.writing import check_replaceable, write_bundle
from nat2deploy.errors import UserError


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    with open_bundle(exported) as bundle:
        return bundle.manifest


def fill_with(text: str):  # type: ignore[no-untyped-def]
    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "more.txt").write_text("more")

    return fill


def check(path: Path, text: str) -> None:
    with open_bundle(path) as bundle:
        bundle.check()
        assert bundle.model.read_text() == text
        assert set(bundle.manifest.files) == {"model.onnx", "sub/more.txt"}


@pytest.mark.parametrize("name", ["out", "deep/er/out", "out.zip", "deep/out.zip", "OUT.ZIP"])
def test_writes_and_replaces_its_own(tmp_path: Path, manifest: Manifest, name: str) -> None:
    out = tmp_path / name
    written = write_bundle(out, manifest, fill_with("one"))
    check(out, "one")
    assert set(written.files) == {"model.onnx", "sub/more.txt"}
    write_bundle(out, manifest, fill_with("two"))
    check(out, "two")
    assert [file.name for file in out.parent.iterdir()] == [out.name]
    assert out.stat().st_mode & 0o777 == (0o755 if out.is_dir() else 0o644)
    assert out.is_file() == (out.suffix.lower() == ".zip")


def test_the_same_content_is_the_same_zip(tmp_path: Path, manifest: Manifest) -> None:
    for name in ("a.zip", "b.zip"):
        write_bundle(tmp_path / name, manifest, fill_with("same"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_empty_folder_may_be_filled(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "out").mkdir()
    write_bundle(tmp_path / "out", manifest, fill_with("one"))
    check(tmp_path / "out", "one")


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_failure_leaves_the_old_bundle(tmp_path: Path, manifest: Manifest, name: str) -> None:
    write_bundle(tmp_path / name, manifest, fill_with("old"))

    def fail(folder: Path) -> None:
        (folder / "model.onnx").write_text("half")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        write_bundle(tmp_path / name, manifest, fail)
    check(tmp_path / name, "old")
    assert len(list(tmp_path.iterdir())) == 1


def test_the_old_bundle_comes_back_when_the_last_move_fails(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_bundle(out, manifest, fill_with("old"))
    replace, moves = Path.replace, []

    def stubborn(self: Path, target: Path) -> Path:
        if target == out:
            moves.append(self)
            if len(moves) == 1:
                raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(writing.Path, "replace", stubborn)
    with pytest.raises(UserError, match="No space left"):
        write_bundle(out, manifest, fill_with("new"))
    monkeypatch.undo()
    check(out, "old")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_others_is_never_touched(tmp_path: Path, manifest: Manifest) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.png").write_text("dear")
    with pytest.raises(UserError, match="not a bundle"):
        write_bundle(photos, manifest, fill_with("one"))
    (photos / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(UserError, match="not a bundle"):
        write_bundle(photos, manifest, fill_with("one"))
    assert (photos / "holiday.png").read_text() == "dear"


def test_a_bundle_with_a_file_of_others_inside_is_kept(tmp_path: Path, manifest: Manifest) -> None:
    out = tmp_path / "out"
    write_bundle(out, manifest, fill_with("one"))
    (out / "sub" / "notes.txt").write_text("dear")
    with pytest.raises(UserError, match=r"holds sub/notes\.txt"):
        write_bundle(out, manifest, fill_with("two"))
    assert (out / "sub" / "notes.txt").read_text() == "dear"


def test_other_things_in_the_way_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    with pytest.raises(UserError, match="is a file"):
        check_replaceable(tmp_path / "file")
    (tmp_path / "file.zip").write_text("dear")
    with pytest.raises(UserError, match="not a bundle"):
        check_replaceable(tmp_path / "file.zip")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_replaceable(tmp_path / "folder.zip")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a link"):
        check_replaceable(tmp_path / "link")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "file").write_text("dear")
    with pytest.raises(UserError, match="choose another place"):
        write_bundle(tmp_path / "file" / "out", manifest, fill_with("one"))


def test_an_old_bundle_that_a_killed_export_left_beside_goes_with_the_next(
    tmp_path: Path, manifest: Manifest
) -> None:
    out = tmp_path / "out"
    write_bundle(out, manifest, fill_with("one"))
    out.rename(tmp_path / ".out.old-abc")
    (tmp_path / ".outer.old-abc").mkdir()
    write_bundle(out, manifest, fill_with("two"))
    check(out, "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".outer.old-abc", "out"]


def test_what_only_has_the_name_of_an_old_bundle_stays(tmp_path: Path, manifest: Manifest) -> None:
    out = tmp_path / "out"
    write_bundle(out, manifest, fill_with("one"))
    (tmp_path / ".out.old-list").write_text("dear")
    (tmp_path / ".out.old-photos").mkdir()
    (tmp_path / ".out.old-photos" / "holiday.png").write_text("dear")
    out.rename(tmp_path / ".out.old-mine")
    (tmp_path / ".out.old-mine" / "notes.txt").write_text("dear")
    for text in ("two", "three"):
        write_bundle(out, manifest, fill_with(text))
        check(out, text)
    assert (tmp_path / ".out.old-list").read_text() == "dear"
    assert (tmp_path / ".out.old-photos" / "holiday.png").read_text() == "dear"
    assert (tmp_path / ".out.old-mine" / "notes.txt").read_text() == "dear"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["inner", "inner.zip", "sub/inner"])
def test_a_place_within_another_bundle_is_refused(tmp_path: Path, manifest: Manifest, name: str) -> None:
    write_bundle(tmp_path / "out", manifest, fill_with("one"))
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for outer in ("out", "link"):
        with pytest.raises(UserError, match="lies within the bundle"):
            write_bundle(tmp_path / outer / name, manifest, fill_with("two"))
    check(tmp_path / "out", "one")
    # A web app's manifest is no bundle's.
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "an app", "schema_version": 3}')
    write_bundle(tmp_path / "app" / name, manifest, fill_with("two"))
    check(tmp_path / "app" / name, "two")


def test_all_of_a_bundle_can_be_read_by_all_whatever_the_umask(tmp_path: Path, manifest: Manifest) -> None:
    before = os.umask(0o077)
    try:
        write_bundle(tmp_path / "out", manifest, fill_with("one"))
    finally:
        os.umask(before)
    paths = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {(path.is_dir(), path.stat().st_mode & 0o777) for path in paths} == {(True, 0o755), (False, 0o644)}
