"""Where data sets are looked for, in which order, and what is said when they are nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from nat2deploy.data.places import candidates, expand, find, is_folder
from nat2deploy.errors import UserError


def test_the_order_of_places(bare_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAT2DEPLOY_DATA", "/own")
    assert [str(place) for place in candidates(None, "a", "B/raw", system=("/usr/a",))] == [
        "/own/a",
        "/own/B/raw",
        f"{bare_home}/cache/nat2deploy/a",
        f"{bare_home}/cache/nat2deploy/B/raw",
        "data/a",
        "data/B/raw",
        f"{bare_home}/home/data/a",
        f"{bare_home}/home/data/B/raw",
        "/usr/a",
    ]


def test_a_given_folder_is_the_only_one(bare_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAT2DEPLOY_DATA", "/own")
    home = bare_home / "home"
    assert candidates("~/x", "a", system=("/usr/a",)) == [home / "x", home / "x" / "a"]


def test_the_variable_may_be_empty_or_begin_with_a_tilde(
    bare_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAT2DEPLOY_DATA", "")
    assert Path("a") not in candidates(None, "a")
    monkeypatch.setenv("NAT2DEPLOY_DATA", "~/sets")
    assert candidates(None, "a")[0] == bare_home / "home" / "sets" / "a"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert Path("data/a") in candidates(None, "a")


def test_an_unknown_home() -> None:
    with pytest.raises(UserError, match="no home folder is known for '~no-such-user/x'"):
        expand("~no-such-user/x")


def test_finds_the_first_place_that_has_all(tmp_path: Path) -> None:
    for name in ("half/one", "whole/one.gz", "whole/two", "later/one", "later/two"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    places = [tmp_path / name for name in ("absent", "half", "whole", "later")]
    assert find("x", places, ["one", "two"], "how") == {
        "one": tmp_path / "whole/one.gz",
        "two": tmp_path / "whole/two",
    }


def test_says_where_it_looked_and_what_was_missing(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half/one").touch()
    with pytest.raises(UserError) as raised:
        find("x", [tmp_path / "absent", tmp_path / "half"], ["one", "two"], "fetch it from its home")
    assert str(raised.value) == (
        f"data set x is not here (looked in {tmp_path}/absent, {tmp_path}/half; {tmp_path}/half lacks two); "
        "fetch it from its home"
    )


@pytest.mark.parametrize("name", ["a" * 400, "a\0b"])
def test_names_that_no_system_takes(name: str) -> None:
    assert not is_folder(Path(name))
    with pytest.raises(UserError, match="data set x is not here"):
        find("x", [Path(name)], ["one"], "how")


def test_a_folder_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refused)
    monkeypatch.setattr(Path, "is_file", refused)
    assert not is_folder(Path("locked"))
    with pytest.raises(UserError, match="data set x is not here"):
        find("x", [Path("locked")], ["one"], "how")
