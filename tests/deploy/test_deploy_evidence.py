from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.evidence import DeviceEvidence, on_machine, with_newer
from nat2deploy.deploy.writing import add_evidence
from nat2deploy.deploy.zipped import pack
from nat2deploy.errors import UserError


@pytest.fixture
def here(exported: Path) -> DeviceEvidence:
    with open_bundle(exported) as bundle:
        return bundle.evidence()[0]


def on(one: DeviceEvidence, device: str, cpu: str) -> DeviceEvidence:
    machine = one.latency.fingerprint.model_copy(update={"cpu": cpu})
    latency = one.latency.model_copy(update={"fingerprint": machine})
    return one.model_copy(update={"device": device, "latency": latency})


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught, open_bundle(path) as bundle:
        bundle.check()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_every_byte_of_a_bundles_own_files_is_watched(bundle: Path) -> None:
    for name in ("manifest.json", "evidence.json"):
        honest = (bundle / name).read_bytes()
        for place in range(0, len(honest), max(len(honest) // 150, 1)):
            bad = bytearray(honest)
            bad[place] ^= 1
            if name == "evidence.json" and _same(honest, bytes(bad)):
                continue
            (bundle / name).write_bytes(bad)
            assert str(bundle) in refused(bundle)
        (bundle / name).write_bytes(honest)


def _same(one: bytes, other: bytes) -> bool:
    """Whether only white space between JSON values differs."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_a_manifest_that_was_edited_is_told_from_the_real_one(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text(encoding="utf-8")
    (bundle / "manifest.json").write_text(text.replace('"nought"', '"naught"'), encoding="utf-8")
    assert refused(bundle) == f"bundle {bundle}: manifest.json is changed (hash differs); export it again"


def test_evidence_that_was_beautified_is_told(bundle: Path) -> None:
    value = json.loads((bundle / "evidence.json").read_text(encoding="utf-8"))
    value["measured"][0]["latency"]["median_ms"] /= 2
    (bundle / "evidence.json").write_text(json.dumps(value), encoding="utf-8")
    assert "evidence.json is changed (digest differs)" in refused(bundle)
    (bundle / "evidence.json").unlink()
    assert "evidence.json is missing" in refused(bundle)


@pytest.mark.parametrize("zipped", [False, True])
def test_evidence_is_written_back_and_nothing_else_changes(
    bundle: Path, tmp_path: Path, here: DeviceEvidence, zipped: bool
) -> None:
    path = bundle
    if zipped:
        path = tmp_path / "tiny.zip"
        pack(bundle, path)
    board = on(here, "board", "Z80")
    with open_bundle(path) as opened:
        manifest = (opened.folder / "manifest.json").read_bytes()
        add_evidence(opened, board)
    with open_bundle(path) as opened:
        opened.check()
        assert opened.evidence() == (here, board)
        assert (opened.folder / "manifest.json").read_bytes() == manifest


def test_newer_evidence_of_a_device_takes_the_place_of_older(here: DeviceEvidence) -> None:
    old, other = on(here, "board", "Z80"), on(here, "board", "Z8000")
    new = old.model_copy(update={"when": datetime(2030, 1, 1, tzinfo=UTC)})
    assert with_newer((here, old, other), new) == (here, other, new)


def test_the_evidence_of_a_like_machine_goes_before_any(here: DeviceEvidence) -> None:
    board = on(here, "board", "Z80")
    assert on_machine((here, board), board.latency.fingerprint) == board
    assert on_machine((board,), here.latency.fingerprint) == board
    assert on_machine((), here.latency.fingerprint) is None
