import errno
import hashlib
import json
import stat
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nat2deploy.errors import UserError
from nat2deploy.files import (
    cannot_write,
    parse,
    parse_toml,
    read_json,
    read_text,
    read_toml,
    remove_temporaries,
    sha256,
    write_atomic,
    write_bytes,
    write_json,
    write_text,
)
from nat2deploy.run.config import load_pipeline


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int
    kind: Literal["a", "b"] = "a"


class Outer(BaseModel):
    inner: list[Inner]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_json_come_back(tmp_path):
    path = tmp_path / "new" / "folders" / "file.json"
    write_json(path, {"b": [1, 2.5, None], "a": "ä"})
    assert read_json(path, "file") == {"b": [1, 2.5, None], "a": "ä"}
    assert read_text(path, "file").startswith('{\n "b"')
    assert read_text(path, "file").endswith("}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == ["file.json"]


def test_a_reader_never_sees_the_file_half_written(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def write(temporary):
        assert temporary != path
        assert temporary.parent == path.parent
        temporary.write_text("ne")
        assert path.read_text() == "old"
        temporary.write_text("new")
        assert path.read_text() == "old"

    write_atomic(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existed", [True, False])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path, failure, existed):
    path = tmp_path / "file"
    if existed:
        write_text(path, "old")

    def write(temporary):
        temporary.write_text("half")
        raise failure("stop")

    with pytest.raises(failure, match="stop"):
        write_atomic(path, write)
    assert names(tmp_path) == (["file"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", [object()])
    assert read_json(tmp_path / "file", "file") == [1]
    assert names(tmp_path) == ["file"]


def test_places_that_cannot_be_written_are_user_errors(tmp_path):
    write_text(tmp_path / "file", "in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"cannot write .*; choose another place"):
            write_text(path, "new")
    assert names(tmp_path) == ["file", "folder"]


def test_a_full_disk_is_a_user_error(tmp_path):
    def write(temporary):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        write_atomic(tmp_path / "file", write)
    assert names(tmp_path) == []


def test_what_cannot_be_read_is_a_user_error(tmp_path):
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xe4")
    with pytest.raises(UserError, match=r"no table at .*absent; check the path"):
        read_text(tmp_path / "absent", "table")
    with pytest.raises(UserError, match=r"cannot read table .*; name a text file in UTF-8"):
        read_text(tmp_path / "latin", "table")
    with pytest.raises(UserError, match=r"cannot read table [^\[]*: Is a directory; name a file"):
        read_text(tmp_path, "table")


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 100_000, "9" * 5000, "{} x"])
def test_what_is_no_json_is_a_user_error(tmp_path, text):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"table .*t\.json is not JSON"):
        read_json(path, "table")


@pytest.mark.parametrize("text", ["a", "a = ", "a = 1\na = 2", "a = " + "[" * 100_000, "a = " + "9" * 5000])
def test_what_is_no_toml_is_a_user_error(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"profile .*p\.toml is not TOML"):
        read_toml(path, "profile")


@given(st.text(alphabet='{}[]":,=.#\n 019eE-+tfn\\u', max_size=30))
def test_random_text_gives_no_other_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_text(text, encoding="utf-8")
    for read, kind in ((read_json, "JSON"), (read_toml, "TOML")):
        try:
            read(path, "file")
        except UserError as error:
            assert f"is not {kind}" in str(error)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"inner": [{"count": 1}, {"count": "x"}]},
            "table t: inner.1.count: Input should be a valid integer",
        ),
        ({"inner": [{"count": 1, "kind": "c"}]}, "table t: inner.0.kind: Input should be 'a' or 'b'"),
        ({"inner": [{"count": 1, "sort": 1}]}, "table t: inner.0.sort: unknown key"),
        ({}, "table t: inner: Field required"),
        ([], "table t: top level: "),
        ({"inner": [{}, {}, {}]}, "table t: inner.0.count: Field required (and 2 more)"),
    ],
)
def test_the_first_thing_that_does_not_fit_is_told_with_its_place(value, message):
    with pytest.raises(UserError) as caught:
        parse(Outer, value, "table t")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


class OneOrMany(BaseModel):
    names: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)]
    tables: dict[str, float | tuple[float, ...]] = {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"names": 3}, "in x: names: Input should be a valid string"),
        ({"names": []}, "in x: names: Tuple should have at least 1 item after validation, not 0"),
        ({"names": ["a", 3]}, "in x: names.1: Input should be a valid string"),
        (
            {"names": "a", "tables": {"b": [1, "c"]}},
            "in x: tables.b.1: Input should be a valid number, unable",
        ),
        ({"names": 3, "tables": {"b": None}}, "in x: names: Input should be a valid string (and 1 more)"),
        ({"names": 3, "tables": 4}, "in x: names: Input should be a valid string (and 1 more)"),
        ({}, "in x: names: Field required"),
    ],
)
def test_of_a_value_that_may_be_of_several_types_one_fault_is_told_at_its_place(value, message):
    with pytest.raises(UserError) as caught:
        parse(OneOrMany, value, "in x")
    assert str(caught.value).startswith(message)
    assert ("more" in str(caught.value)) == ("more" in message)


@pytest.mark.parametrize("count", ["3", True, 3.5])
def test_what_people_write_is_not_taken_for_another_type(tmp_path, count):
    path = tmp_path / "own.toml"
    path.write_text(f"inner = [{{count = {json.dumps(count)}}}]\n")
    with pytest.raises(UserError, match=r"^table .*own.toml: inner.0.count: Input should be a valid int"):
        parse_toml(Outer, path, "table")
    path.write_text("inner = [{count = 3}]\n")
    assert parse_toml(Outer, path, "table") == Outer(inner=[Inner(count=3)])


def test_what_fits_is_returned():
    assert parse(Outer, {"inner": [{"count": 3}]}, "table") == Outer(inner=[Inner(count=3)])


def test_sha256_is_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_full_disk_leaves_the_old_file(tmp_path, full_disk):
    write_text(tmp_path / "file", "old")
    with full_disk(10), pytest.raises(UserError, match=r"file: File too large; choose another place"):
        write_bytes(tmp_path / "file", bytes(11))
    assert read_text(tmp_path / "file", "file") == "old"
    assert names(tmp_path) == ["file"]


def test_no_room_is_said_to_be_that(tmp_path):
    error = cannot_write(tmp_path / "file", OSError(errno.ENOSPC, "No space left on device"))
    assert "file: No space left on device; make room or choose another place" in str(error)


def test_what_killed_writings_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "networks" / "a").mkdir(parents=True)
    (tmp_path / ".bundle.x.tmp" / "runner").mkdir(parents=True)
    (tmp_path / "of-another").mkdir()
    left = (".front.json.x.tmp", "networks/a/.finetune.json.y.tmp")
    kept = (".adaptation", "front.tmp", "of-another/.lock", "of-another/.front.json.z.tmp")
    for name in (*left, *kept):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path)
    assert not any((tmp_path / name).exists() for name in (*left, ".bundle.x.tmp"))
    assert all((tmp_path / name).exists() for name in kept)


def test_the_names_of_temporaries_are_those_that_are_removed(tmp_path):
    def killed(temporary):
        remove_temporaries(tmp_path)
        assert not temporary.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", killed)
    assert names(tmp_path) == []


def test_a_lone_surrogate_is_refused_in_words():
    def picky(value):
        raise ValueError(f"'{value}' is odd")

    class Picky(BaseModel):
        word: Annotated[object, BeforeValidator(picky)]

    with pytest.raises(UserError, match="options: a text in it is no valid Unicode"):
        parse(Picky, {"word": "\ud800"}, "options")


def test_a_toml_of_windows_editor_and_a_list_that_is_none(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b'\xef\xbb\xbfdata = "digits"\nbudgets = "params<=1M"\n')
    assert read_toml(path, "config")["data"] == "digits"
    with pytest.raises(UserError, match=r"budgets: .*; write a list: \[\.\.\.\]"):
        load_pipeline(path)
