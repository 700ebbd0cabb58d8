"""What was evaluated is never lost, whatever ends the process."""

from __future__ import annotations

import json

import pytest

from nat2deploy.errors import UserError
from nat2deploy.search.archive import ArchiveFile, Evaluation
from nat2deploy.space.architecture import Architecture, Layer


def evaluation(space, version=0, *, largest=False, role="archive", top1=1 / 3):
    architecture = space.largest() if largest else space.smallest()
    values = {"top1": top1, "macs": 1e5 / 7, "params": 1234.0, "size_mb": 0.1 + 0.2}
    return Evaluation(architecture, version, role, 2.0 / 3.0, values)


@pytest.fixture
def filled(space, tmp_path):
    """A file of four evaluations, and them."""
    file = ArchiveFile(tmp_path / "archive.jsonl", space)
    written = [
        evaluation(space, 0),
        evaluation(space, 0, largest=True, role="candidate", top1=1.0),
        evaluation(space, 1),
        evaluation(space, 1, largest=True, top1=0.0),
    ]
    for one in written:
        file.append(one)
    return file.path, written


def test_what_is_appended_is_read_back_to_the_last_bit(space, filled):
    path, written = filled
    assert ArchiveFile(path, space).evaluations == written


def test_nothing_is_there_before_the_first_line(space, tmp_path):
    file = ArchiveFile(tmp_path / "archive.jsonl", space)
    assert file.evaluations == [] and file.of_version(0) == []
    assert not file.path.exists()


def test_a_line_tells_id_and_architecture_to_other_programs(space, filled):
    first = json.loads(filled[0].read_text().splitlines()[0])
    assert first["id"] == space.smallest().id
    assert first["architecture"] == space.smallest().to_json()


def test_find_goes_by_architecture_and_version(space, filled):
    path, written = filled
    file = ArchiveFile(path, space)
    assert file.find(space.smallest(), 0) == written[0]
    assert file.find(space.largest(), 1) == written[3]
    assert file.find(space.smallest(), 2) is None
    other = Architecture(16, 1.0, ((Layer(5, 2.0),), (Layer(3, 3.0),)))
    assert file.find(other, 0) is None
    assert file.of_version(1) == written[2:]
    assert file.of_version(7) == []


def test_an_appended_evaluation_is_found_at_once_and_on_disk_at_once(space, tmp_path):
    file = ArchiveFile(tmp_path / "archive.jsonl", space)
    one = evaluation(space)
    file.append(one)
    assert file.find(one.architecture, 0) is one
    assert file.path.read_bytes().endswith(b"\n")
    assert ArchiveFile(file.path, space).evaluations == [one]


def test_error_is_what_top1_leaves(space):
    assert evaluation(space, top1=0.75).error == 0.25


@pytest.mark.parametrize("kept", [1, 40, -2, -1])
def test_a_half_written_last_line_is_dropped_and_the_file_goes_on(space, filled, kept):
    path, written = filled
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:kept])
    file = ArchiveFile(path, space)
    assert file.evaluations == written[:3]
    file.append(written[3])
    assert path.read_bytes() == b"".join(lines)
    assert ArchiveFile(path, space).evaluations == written


def test_a_half_written_first_line_leaves_an_empty_archive(space, filled):
    path, _ = filled
    path.write_bytes(path.read_bytes()[:20])
    assert ArchiveFile(path, space).evaluations == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id": "x"}',
        b'{"id":"x","version":0,"role":"judge","loss":1.0,"values":{},"architecture":{}}',
        b'{"id":"x","version":0,"role":"archive","loss":1.0,"values":{},"architecture":{"d":9}}',
    ],
)
def test_a_broken_line_in_the_middle_is_named(space, filled, broken):
    path, _ = filled
    lines = path.read_bytes().splitlines()
    lines[1] = broken
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match=r"archive\.jsonl, line 2 cannot be read"):
        ArchiveFile(path, space)


def test_an_architecture_of_another_space_is_refused(filled, wide_encoding):
    with pytest.raises(UserError, match="line 1"):
        ArchiveFile(filled[0], wide_encoding.space)


def test_a_full_disk_is_said_and_loses_no_evaluation(space, filled, full_disk):
    path, written = filled
    size = path.stat().st_size
    file = ArchiveFile(path, space)
    with full_disk(size + 20), pytest.raises(UserError, match=r"cannot write .*archive\.jsonl"):
        file.append(evaluation(space, 2))
    assert size < path.stat().st_size < size + 100, "no part of the line was written"
    again = ArchiveFile(path, space)
    assert again.evaluations == written
    again.append(evaluation(space, 2))
    assert ArchiveFile(path, space).evaluations == [*written, evaluation(space, 2)]
