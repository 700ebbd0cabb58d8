"""A small part of ``make fuzz``, and what came out of it."""

import gzip
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fuzz.__main__ import all_targets
from fuzz.target import fuzz
from nat2deploy.agent.job import JOB_FILE, Job, receive
from nat2deploy.cli.options import tables
from nat2deploy.cost.table import load_table
from nat2deploy.deploy.reference import load_reference
from nat2deploy.deploy.runner.network import Network
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.errors import UserError
from nat2deploy.report.facts import gather
from nat2deploy.report.payload import payload_of
from nat2deploy.report.reading import read_run
from nat2deploy.run.config import ExportConfig, load_pipeline
from nat2deploy.run.export import bundle_target
from nat2deploy.run.pipeline import run_pipeline
from nat2deploy.search.tabular import load_tabular
from nat2deploy.target import load_profile

DEEP = '{"a":' * 50_000


def test_damaged_input_to_every_parser_is_taken_or_refused_in_words(outcome, tmp_path):
    found = [fuzz(target, 40, seed=1) for target in all_targets(tmp_path, outcome.out)]
    faults = {one.name: one.firsts for one in found if one.faults}
    assert faults == {}
    assert sum(one.inputs for one in found) == 40 * len(found) > 1000
    assert sum(one.refused for one in found) > 700 and sum(one.accepted for one in found) > 100


def test_a_name_that_no_system_takes_is_no_file(tmp_path):
    for name in ("x" * 5000, "\0"):
        with pytest.raises(UserError, match="no latency table"):
            load_table(Path(name))
        with pytest.raises(UserError, match="no profile"):
            load_profile(Path(name))
        assert tables([f"pi5={name}"]) == (None, {"pi5": name})
        with pytest.raises(UserError, match="cannot read latency table"):
            load_table(tmp_path / f"{name}.json")


def test_a_job_that_is_nested_too_deep_is_refused(tmp_path):
    (tmp_path / JOB_FILE).write_text(DEEP)
    with pytest.raises(UserError, match="cannot be read"):
        Job(tmp_path)


def test_a_manifest_with_an_endless_size_is_refused_by_the_runner(outcome, tmp_path):
    manifest = json.loads((outcome.bundle / "manifest.json").read_text())
    manifest["input"]["shape"][2] = float("inf")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="missing or damaged"):
        Network(tmp_path, 1)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("timings.json", ("train",), [0.4]),
        ("search/history.json", (0,), 7),
        ("search/front.json", ("networks", 0, "architecture", "d", 0), float("inf")),
        ("search/front.json", ("networks", 0, "architecture", "d"), 2.5),
        ("search/front.json", ("networks", 0, "architecture", "exits"), 3),
    ],
)
def test_a_report_leaves_out_what_is_damaged(outcome, tmp_path, name, place, value):
    run = tmp_path / "run"
    shutil.copytree(outcome.out, run)
    whole = holder = json.loads((run / name).read_text())
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    (run / name).write_text(json.dumps(whole))
    payload_of(gather(read_run(run)))


def test_damaged_timings_are_refused_by_the_pipeline_that_goes_on(outcome, config_path, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(outcome.out, run)
    (run / "timings.json").write_text('{"profile": []}')
    with pytest.raises(UserError, match=r"timings .*timings\.json: profile: Input should be a valid number"):
        run_pipeline(load_pipeline(config_path), run)


def test_a_batch_larger_than_any_is_refused():
    with pytest.raises(UserError, match="options: batch: Input should be less than or equal to 4096"):
        bundle_target(ExportConfig(batch="9999"), None)


@pytest.mark.parametrize("size", [1, 3, 9, 12])
def test_a_job_that_is_cut_off_at_its_very_beginning_is_refused(tmp_path, size):
    with pytest.raises(UserError, match="the job was cut off"):
        receive(io.BytesIO(gzip.compress(bytes(2000))[:size]), tmp_path)


@pytest.mark.parametrize("load", [load_tabular, load_reference])
def test_a_zip_that_is_packed_in_an_unknown_way_is_refused(tmp_path, load):
    path = tmp_path / "file.npz"
    names = ("info", "genes", "validation_right", "test_right", "images", "logits")
    np.savez(path, **{name: np.zeros(2, np.uint8) for name in names})
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:  # in the central directory: a method of nobody
        data[at + 10] = 77
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        load(path)


def test_an_array_whose_header_is_cut_off_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        for name in ("info", "images"):
            archive.writestr(
                f"{name}.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': (" + 85 * b" "
            )
    for load in (load_tabular, load_reference):
        with pytest.raises(UserError, match="cannot be read"):
            load(tmp_path / "file.npz")
