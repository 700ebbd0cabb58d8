import json

import pytest

from nat2deploy.cost.certificate import certify
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UserError


@pytest.fixture
def saved(table, tmp_path):
    path = tmp_path / "table.json"
    save_table(table, path)
    return path


def test_written_and_read_back_unchanged(table, tmp_path):
    certified = table.model_copy(
        update={"certificate": certify([1.0, 2, 3, 4], [1.02, 2, 3.1, 4], noise=0.01)}
    )
    save_table(certified, tmp_path / "t.json")
    assert load_table(tmp_path / "t.json") == certified
    value = json.loads((tmp_path / "t.json").read_text())
    assert value["target"]["backend"] == "onnxruntime"
    assert len(value["entries"]) == len(table.entries)
    assert {"networks", "mape", "within_5pct", "within_10pct", "spearman"} <= set(value["certificate"])


def first_entry(value):
    return next(iter(value["entries"].values()))


def rename(value):
    value["entries"] = {"mbconv-what": first_entry(value)}


BREAKS = {
    "negative median": (lambda v: first_entry(v).update(median_ms=-1.0), "median_ms.*greater than"),
    "NaN": (lambda v: first_entry(v).update(p99_ms=float("nan")), "p99_ms"),
    "infinite": (lambda v: first_entry(v).update(p95_ms=float("inf")), "p95_ms"),
    "absurd": (lambda v: first_entry(v).update(p99_ms=1e308), "p99_ms.*less than"),
    "next to nothing": (lambda v: first_entry(v).update(median_ms=1e-300), "median_ms"),
    "a terminal's codes": (lambda v: v["fingerprint"].update(cpu="a\x1b[2J"), "not printable"),
    "codes of a GPU": (
        lambda v: v["fingerprint"].update(gpu={"name": "\x1b", "compute_capability": "9", "memory_bytes": 1}),
        "not printable",
    ),
    "codes elsewhere": (lambda v: v.update(clock_changes=["\x1b]0;x\x07"]), "not printable"),
    "text": (lambda v: first_entry(v).update(median_ms="fast"), "median_ms.*number"),
    "median outside": (lambda v: first_entry(v).update(ci_high_ms=1e-9), "outside its confidence"),
    "tail below": (lambda v: first_entry(v).update(p95_ms=1e-9), "ascending"),
    "macs": (lambda v: first_entry(v).update(macs=1), "wrong counts"),
    "no signature": (rename, "'mbconv-what' is not a block signature"),
    "empty": (lambda v: v.update(entries={}), "entries.*at least 1"),
    "unknown field": (lambda v: v.update(colour="red"), "colour"),
    "missing": (lambda v: v.pop("target"), "target.*required"),
    "schema": (lambda v: v.update(schema_version=9), "schema version 9"),
    "no schema": (lambda v: v.pop("schema_version"), "no latency table"),
    "noise": (lambda v: v.update(noise_floor=-0.1), "noise_floor"),
    "calibration": (lambda v: v["calibration"].update(scale=float("nan")), r"calibration\.scale"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_table_is_one_clear_line(saved, name):
    damage, message = BREAKS[name]
    value = json.loads(saved.read_text())
    damage(value)
    saved.write_text(json.dumps(value))
    with pytest.raises(UserError, match=message) as raised:
        load_table(saved)
    assert "\n" not in str(raised.value)
    assert "table.json" in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"table"', "[" * 100_000])
def test_what_is_no_json_object(saved, text):
    saved.write_text(text)
    with pytest.raises(UserError, match=r"not JSON|no latency table"):
        load_table(saved)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no latency table at"):
        load_table(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"calibration": {"scale": 1e308}}, "scale"),
        ({"widths": [float("inf")]}, "widths"),
        ({"resolutions": [10**400]}, "resolutions"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(repository, tmp_path, change, words):
    held = json.loads((repository / "latency_tables" / "nano-ee-d-28-32px-x86-1-thread.json").read_text())
    for name, value in change.items():
        held[name] = held[name] | value if isinstance(value, dict) else value
    (tmp_path / "t.json").write_text(json.dumps(held))
    with pytest.raises(UserError, match=words) as error:
        load_table(tmp_path / "t.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
