from pathlib import Path

import pytest

from nat2deploy import shipped
from nat2deploy.cost.table import load_table
from nat2deploy.errors import UserError
from nat2deploy.shipped import find_file, shipped_files
from nat2deploy.target import load_profile


def test_names_are_found_from_anywhere(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x86-1-thread", "x86-1-thread.toml"):
        assert load_profile(Path(name)) == load_profile(repository / "profiles/x86-1-thread.toml")
    assert load_table(Path("nano-x86-1-thread")).space == "nano"
    assert shipped_files("profiles") and shipped_files("latency_tables")


def test_a_file_goes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x86-1-thread").write_text("name = 'mine'\n[target]\nthreads = 3\n")
    assert load_profile(Path("x86-1-thread")).name == "mine"


@pytest.mark.parametrize("name", ["x86-99-threads", "../profiles/x86-1-thread", "sub/x86-1-thread"])
def test_what_is_no_name_stays_as_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_file(Path(name), "profiles") == Path(name)
    with pytest.raises(UserError, match="no profile"):
        load_profile(Path(name))


def test_an_unknown_name_is_told_where_the_names_are():
    with pytest.raises(UserError, match=r"no profile 'toaster'; `nat2deploy profiles` lists"):
        load_profile(Path("toaster"))
    with pytest.raises(UserError, match=r"no latency table 'toaster'; `nat2deploy profiles` lists"):
        load_table(Path("toaster"))


def test_an_installed_package_has_them_inside_and_looks_at_no_neighbours(tmp_path, monkeypatch):
    package = tmp_path / "nat2deploy"
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "theirs.toml").touch()
    assert shipped_files("profiles") == []
    (package / "profiles").mkdir(parents=True)
    (package / "profiles" / "ours.toml").touch()
    assert find_file(Path("ours"), "profiles") == package / "profiles" / "ours.toml"
    assert find_file(Path("theirs"), "profiles") == Path("theirs")
