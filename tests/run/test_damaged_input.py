"""A small part of ``make fuzz`` and ``make fuzz-guided``, and what came out of them."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fuzz.target import fuzz
from fuzz.targets import all_targets
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
needs_atheris = pytest.mark.skipif(find_spec("atheris") is None, reason="pip install 'nat2deploy[fuzz]'")

# Each character is a branch of its own: drawn blindly, one input in some million would have them all.
PLANTED = """
import os
import signal

from nat2deploy.errors import UserError

def parse(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    found = 0
    if text[0:1] == "m":
        found += 1
        if text[1:2] == "a":
            found += 1
            if text[2:3] == "c":
                found += 1
                if text[3:4] == "=":
                    raise KeyError("planted")
    raise UserError(f"no budget: {found}")

def die(data: bytes) -> None:
    if data.count(b"m") > 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    raise UserError("no budget")
"""
PROGRAM = """
import json, sys
from dataclasses import asdict
from pathlib import Path

from fuzz.instrument import instrumented

with instrumented(["planted"]):
    import planted
from fuzz.guided import guided
from fuzz.inputs import of_text
from fuzz.target import Target, fuzz

target = Target("planted", 1, [b"latency<=5ms"], of_text, planted.parse)
found = guided(target, 20_000, 0, Path("corpus"))
dead = guided(Target("dead", 1, [b"latency<=5ms"], of_text, planted.die), 20_000, 0, Path("other"))
blind = fuzz(target, 20_000, 0)
print(json.dumps({"guided": asdict(found), "dead": asdict(dead), "blind": asdict(blind)}))
"""


def test_damaged_input_to_every_parser_is_taken_or_refused_in_words(outcome, tmp_path):
    found = [fuzz(target, 40, seed=1) for target in all_targets(tmp_path, outcome.out)]
    faults = {one.name: one.firsts for one in found if one.faults}
    assert faults == {}
    assert sum(one.inputs for one in found) == 40 * len(found) > 1000
    assert sum(one.refused for one in found) > 700 and sum(one.accepted for one in found) > 100


def python(*words, cwd, repository):
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{cwd}{os.pathsep}{repository}"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_atheris
def test_inputs_that_reach_more_code_lead_to_a_planted_fault_and_a_parser_that_dies_is_one(
    tmp_path, repository
):
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "program.py").write_text(PROGRAM)
    done = python("program.py", cwd=tmp_path, repository=repository)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [(fault, (trace, given))] = found["guided"]["firsts"].items()
    assert fault.startswith("KeyError at ") and fault.endswith("planted.py:17")
    assert "planted" in trace and given.startswith("b'mac=")
    assert found["guided"]["inputs"] == 20_000 and found["guided"]["refused"] > 0
    assert found["guided"]["edges"] >= 5 and found["guided"]["corpus"] >= 4
    assert found["blind"]["faults"] == {}
    [(fault, (log, given))] = found["dead"]["firsts"].items()
    assert fault == "libFuzzer: deadly signal" and "ERROR" in log and given.count("m") > 1


@needs_atheris
def test_parsers_take_or_refuse_guided_inputs_and_are_told_with_what_was_reached(
    outcome, tmp_path, repository
):
    words = ("-m", "fuzz", "--guided", "--count", "300", "--only", "budgets", "profiles")
    more = ("--run", str(outcome.out), "--corpus", "corpus", "--json", "found.json")
    done = python(*words, *more, cwd=tmp_path, repository=repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "branches reached by" in done.stdout and "0 faults" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["guided"] is True
    names = [one["name"] for one in found["targets"]]
    assert names == ["budgets", "names of spaces and profiles", "profiles"]
    for one in found["targets"]:
        assert one["inputs"] == one["accepted"] + one["refused"] > 0
        assert one["edges"] > 20 and one["features"] >= one["edges"]
    assert len(list((tmp_path / "corpus" / "budgets").iterdir())) > 10


def test_without_atheris_one_line_says_how_to_get_it(tmp_path, repository):
    (tmp_path / "atheris.py").write_text("raise ImportError")
    done = python("-m", "fuzz", "--guided", cwd=tmp_path, repository=repository)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "pip install 'nat2deploy[fuzz]'" in done.stderr


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
    with pytest.raises(UserError, match=r"^--batch: Input should be less than or equal to 4096"):
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
