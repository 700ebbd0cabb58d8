from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nat2deploy.deploy import zipped
from nat2deploy.deploy.zipped import pack, unpack
from nat2deploy.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("b" * 1000)
    (folder / "sub" / "a.bin").write_bytes(bytes(range(256)))
    return folder


def unpacked(path: Path, where: Path) -> dict[str, bytes]:
    where.mkdir()
    unpack(path, where)
    return {
        file.relative_to(where).as_posix(): file.read_bytes() for file in where.rglob("*") if file.is_file()
    }


def test_a_round_trip_keeps_every_byte(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "x.zip")
    assert unpacked(tmp_path / "x.zip", tmp_path / "out") == {
        "b.txt": b"b" * 1000,
        "sub/a.bin": bytes(range(256)),
    }


def test_the_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "one.zip")
    (folder / "b.txt").chmod(0o600)
    os.utime(folder / "b.txt", (1e9, 1e9))
    (folder / "b.txt").rename(folder / "c")
    (folder / "c").rename(folder / "b.txt")
    pack(folder, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["b.txt", "sub/a.bin"]
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "C:evil", "a//b", "a\nb"]
)
def test_a_name_that_escapes_is_refused(tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(entry, "evil")
    with pytest.raises(UserError, match="relative path"):
        unpacked(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "evil").exists() and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_a_link_or_device_is_refused(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match="link"):
        unpacked(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize("names", [("a", "a"), ("a.txt", "A.TXT")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.writestr(name, name)
    with pytest.raises(UserError, match="twice"):
        unpacked(tmp_path / "x.zip", tmp_path / "out")


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "")
        archive.writestr("a/b", "")
    with pytest.raises(UserError, match="can be read"):
        unpacked(tmp_path / "x.zip", tmp_path / "out")


def test_an_absurd_size_is_refused_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1_000_000))
    monkeypatch.setattr(zipped, "MAX_BYTES", 999_999)
    with pytest.raises(UserError, match="larger than any bundle"):
        unpacked(tmp_path / "x.zip", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_size_that_lies_does_not_write_more(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1_000_000))
    real, lie = (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(real, lie))
    with pytest.raises(UserError, match="can be read"):
        unpacked(path, tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*")) <= 10


def test_folders_among_the_entries_are_fine(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.mkdir("sub")
        archive.writestr("sub/a", "a")
    assert unpacked(tmp_path / "x.zip", tmp_path / "out") == {"sub/a": b"a"}


@given(at=st.integers(0, 5000), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_refused_or_harmless(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: bool
) -> None:
    where = tmp_path_factory.mktemp("damage")
    pack(folder, where / "x.zip")
    data = bytearray((where / "x.zip").read_bytes())
    at %= len(data)
    data[at] = value
    (where / "x.zip").write_bytes(data[:at] if cut else data)
    try:
        found = unpacked(where / "x.zip", where / "out")
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert set(found.values()) <= {b"b" * 1000, bytes(range(256))}


def test_a_cut_that_ends_with_an_inner_zip_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(folder / "inner.zip", "w") as archive:
        archive.writestr("manifest.json", "{}")
    (folder / "z").write_bytes(bytes(5000))
    pack(folder, tmp_path / "x.zip")
    data = (tmp_path / "x.zip").read_bytes()
    inner = (folder / "inner.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(data[: data.index(inner) + len(inner)])
    with pytest.raises(UserError, match="cut off"):
        unpacked(tmp_path / "x.zip", tmp_path / "out")
