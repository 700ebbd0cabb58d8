"""The agent as a device sees it: one file, an old Python, numpy and onnxruntime."""

import ast
import errno
import importlib
import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from devices import bare_environment, make_old_python, make_python
from torch import nn

from nat2deploy.agent.job import JOB_FILE, MODELS, RESULT_FILE
from nat2deploy.agent.measuring import measure_job
from nat2deploy.measure import prepared
from nat2deploy.measure.groups import Block, Candidate, Group, Overhead
from nat2deploy.measure.interleave import measure_interleaved
from nat2deploy.remote.agent_file import agent_modules, agent_source, imports
from nat2deploy.remote.answers import ResultAnswer, group_measurement
from nat2deploy.remote.packing import write_job
from nat2deploy.space.lowering import every_signature
from nat2deploy.target import Target, fingerprint


class Convolution(Candidate):
    """A candidate that is no block of ours."""

    input_shape = (3, 8, 8)

    def build(self):
        module = nn.Conv2d(3, 4, 3)
        nn.init.constant_(module.weight, 0.1)
        return module.eval()


def group(name, **changes):
    candidates = {"nothing": Overhead(), "convolution": Convolution()}
    settings = {"seed": 3, "precision": 0.5, "time_limit_s": 0.2, **changes}
    return Group(name=name, profile="0" * 16, candidates=candidates, **settings)


def make_job(folder, *groups, target=None):
    """A folder as a kit unpacks to."""
    identity = write_job(folder, target or Target(), groups, progress=lambda share, text: None)
    (folder / "measure.py").write_text(agent_source(), encoding="utf-8")
    return identity


def measure(python, folder, *arguments, **options):
    return subprocess.run(
        [str(python), str(folder / "measure.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=bare_environment(),
        timeout=120,
        **options,
    )


def sources_of(agent):
    """The embedded modules: name to text."""
    (sources,) = [
        node.value
        for node in ast.parse(agent, feature_version=(3, 9)).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SOURCES"
    ]
    return ast.literal_eval(sources)


def test_it_is_python_3_9_and_needs_numpy_and_onnxruntime_alone():
    outside = set()
    sources = sources_of(agent_source())
    assert tuple(sources) == agent_modules()
    for name, text in sources.items():
        assert text == inspect.getsource(importlib.import_module(name))
        ast.parse(text, feature_version=(3, 9))
        outside.update(module.split(".")[0] for module in imports(text))
    assert outside - sys.stdlib_module_names == {"nat2deploy", "numpy", "onnxruntime"}
    with pytest.raises(SyntaxError):
        ast.parse("match 1:\n    case 1: pass", feature_version=(3, 9))


def test_annotations_that_an_old_python_cannot_evaluate_are_left_unevaluated():
    for text in sources_of(agent_source()).values():
        if any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(text))):
            assert "from __future__ import annotations" in text


def test_it_holds_the_clock_and_nothing_that_is_heavy():
    modules = agent_modules()
    assert {"nat2deploy.measure.interleave", "nat2deploy.measure.clock"} <= set(modules)
    assert not {"nat2deploy.target", "nat2deploy.files", "nat2deploy.agent.launcher"} & set(modules)
    assert agent_source() == agent_source()


def test_a_device_has_neither_torch_nor_pydantic_nor_this_package(device_python, tmp_path):
    for module in ("torch", "pydantic", "nat2deploy", "scipy"):
        done = subprocess.run(
            [device_python, "-c", f"import {module}"],
            capture_output=True,
            env=bare_environment(),
            cwd=tmp_path,
        )
        assert b"ModuleNotFoundError" in done.stderr


def test_it_measures_8_bit_blocks_from_bytes_to_bytes(device_python, tmp_path, tiny_space):
    blocks = {s.kind: Block(s, 0) for s in every_signature(tiny_space, (10,))}
    only = replace(group("only"), candidates={"nothing": Overhead(), **blocks})
    identity = make_job(tmp_path, only, target=Target(precision="int8"))
    done = measure(device_python, tmp_path)
    assert done.returncode == 0, done.stderr
    (candidates,) = (one["candidates"] for one in json.loads((tmp_path / JOB_FILE).read_text())["groups"])
    models = {one["name"]: onnx.load(tmp_path / MODELS / f"{one['model']}.onnx") for one in candidates}
    kinds = {name: model.graph.input[0].type.tensor_type.elem_type for name, model in models.items()}
    assert kinds.pop("nothing") == kinds.pop("stem") == onnx.TensorProto.FLOAT
    assert set(kinds) >= {"mbconv", "head", "classifier"} and set(kinds.values()) == {onnx.TensorProto.UINT8}
    result = ResultAnswer.model_validate_json((tmp_path / RESULT_FILE).read_text())
    assert list(group_measurement(result, identity, "only").summaries) == ["nothing", *blocks]


def test_by_hand_it_measures_all_groups_and_goes_on_where_it_was(device_python, tmp_path):
    identity = make_job(tmp_path, group("first"), replace(group("second", seed=4), energy_share=0.3))
    done = measure(device_python, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bring back" in done.stdout.splitlines()[-1]
    result = ResultAnswer.model_validate_json((tmp_path / RESULT_FILE).read_text())
    assert result.machine.same_machine(fingerprint())
    assert result.machine.libraries["torch"] == "not installed"
    found = group_measurement(result, identity, "second")
    assert list(found.summaries) == ["nothing", "convolution"]
    assert found.reference_ms > 0 and found.rounds >= 1
    # Measured where the machine that runs the tests has a meter; else it says why not.
    assert found.energy_word and (found.energy_mj is None or list(found.energy_mj) == list(found.summaries))
    assert [clock["governor"] for clock in found.clocks] == [result.machine.governor] * 2
    assert group_measurement(result, identity, "first").energy_word == ""

    kept = json.loads((tmp_path / RESULT_FILE).read_text())
    first = kept["groups"].pop("first")
    kept["machine"]["mhz"] = 1.0  # it moves by itself, so this is the same machine
    (tmp_path / RESULT_FILE).write_text(json.dumps(kept))
    again = measure(device_python, tmp_path)
    assert "going on: 1 of 2 groups were measured before" in again.stdout
    assert "first: " in again.stdout and "second: " not in again.stdout
    now = json.loads((tmp_path / RESULT_FILE).read_text())["groups"]
    assert now["second"] == kept["groups"]["second"]
    assert now["first"].keys() == first.keys()
    assert not list(tmp_path.glob(".*.part"))


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory):
    """A folder as a small kit unpacks to; copy it."""
    folder = tmp_path_factory.mktemp("job") / "only"
    folder.mkdir()
    make_job(folder, group("only"))
    return folder


@pytest.fixture(scope="module")
def measured(unmeasured, tmp_path_factory, device_python):
    """The same with its result; copy it."""
    folder = Path(shutil.copytree(unmeasured, tmp_path_factory.mktemp("measured") / "only"))
    assert measure(device_python, folder).returncode == 0
    return folder


@pytest.mark.parametrize("change", ["half", "another job", "another machine", "no groups"])
def test_results_that_do_not_fit_are_measured_anew(device_python, measured, tmp_path, change):
    folder = Path(shutil.copytree(measured, tmp_path / "only"))
    text = (folder / RESULT_FILE).read_text()
    value = json.loads(text)
    value["groups"]["only"]["elapsed_s"] = 12345.0
    if change == "another job":
        value["job"] = "0" * 64
    elif change == "another machine":
        value["machine"]["cores"] += 1
    elif change == "no groups":
        del value["groups"]
    (folder / RESULT_FILE).write_text(text[:200] if change == "half" else json.dumps(value))
    assert measure(device_python, folder).returncode == 0
    assert 0 < json.loads((folder / RESULT_FILE).read_text())["groups"]["only"]["elapsed_s"] < 1000


def one_line(done):
    assert done.returncode == 2 and done.stdout == "", done
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(("packages", "missing"), [([], "numpy"), (["numpy"], "onnxruntime")])
def test_a_missing_module_is_one_line(tmp_path, packages, missing):
    (tmp_path / "measure.py").write_text(agent_source(), encoding="utf-8")
    line = one_line(measure(make_python(tmp_path / "python", *packages), tmp_path))
    assert f"'{missing}'" in line and "-m pip install numpy onnxruntime" in line


def test_an_old_python_is_one_line(device_python, unmeasured, tmp_path):
    line = one_line(measure(make_old_python(tmp_path / "python", device_python), unmeasured))
    assert line == "error: Python 3.8 is too old, 3.9 or newer is needed"


def damage_model(folder):
    model = next((folder / "models").iterdir())
    for path in (folder / "models").iterdir():
        path.write_bytes(model.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / JOB_FILE).unlink(), "no job.json"),
        (lambda folder: (folder / JOB_FILE).write_text("{"), "cannot be read"),
        (lambda folder: (folder / JOB_FILE).write_text('{"form": 7}'), "form 7"),
        (damage_model, "damaged on its way"),
    ],
)
def test_a_damaged_kit_is_one_line(device_python, unmeasured, tmp_path, damage, words):
    folder = Path(shutil.copytree(unmeasured, tmp_path / "only"))
    damage(folder)
    done = measure(device_python, folder)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1] and done.stderr.startswith("error: ")


def test_more_threads_than_the_device_has_are_one_line(device_python, tmp_path):
    make_job(tmp_path, group("only"), target=Target(threads=1000))
    done = measure(device_python, tmp_path)
    assert done.returncode == 2
    assert "the target has 1000, this process may use" in done.stderr


def test_followed_it_ends_with_its_connection(device_python, tmp_path):
    (tmp_path / "job").mkdir()
    make_job(tmp_path / "job", group("long", precision=1e-9, time_limit_s=600.0))
    agent = subprocess.Popen(
        [device_python, tmp_path / "job" / "measure.py", "--follow", tmp_path / "job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=bare_environment(),
    )
    assert "share" in json.loads(agent.stdout.readline())
    agent.stdin.close()
    assert agent.wait(timeout=60) == 1
    agent.stdout.close()
    assert not (tmp_path / "job" / RESULT_FILE).exists()


def test_followed_without_a_job_it_asks_for_one(device_python, tmp_path):
    (tmp_path / "measure.py").write_text(agent_source(), encoding="utf-8")
    done = measure(device_python, tmp_path, "--follow", tmp_path / "none")
    assert json.loads(done.stdout) == {"missing": True}


def test_what_is_received_is_a_job_or_nothing(device_python, tmp_path):
    (tmp_path / "measure.py").write_text(agent_source(), encoding="utf-8")
    for sent in (b"", b"no tar at all" * 100):
        done = measure(device_python, tmp_path, "--receive", tmp_path / "job", input=sent.decode())
        assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert not (tmp_path / "job" / JOB_FILE).exists()


def test_two_measurements_on_one_device_wait_for_each_other(device_python, unmeasured, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    folder = Path(shutil.copytree(unmeasured, tmp_path / "only"))
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        agent = subprocess.Popen(
            [device_python, folder / "measure.py"],
            stdout=subprocess.PIPE,
            text=True,
            env=bare_environment(),
        )
        for line in agent.stdout:
            if "waiting for another measurement" in line:
                break
        else:
            pytest.fail("it did not wait")
        assert not (folder / RESULT_FILE).exists()
    said, _ = agent.communicate(timeout=120)
    assert agent.returncode == 0 and "only: " in said
    assert (folder / RESULT_FILE).exists()


def test_the_agent_warms_up_as_long_as_the_job_says(tmp_path, monkeypatch):
    """And as before where a job of before says nothing."""
    told = []

    def watched(*arguments, **settings):
        told.append(settings["warmup_ms"])
        return measure_interleaved(*arguments, **settings)

    monkeypatch.setattr(prepared, "measure_interleaved", watched)
    groups = [group("a"), group("b", warmup_ms=20.0)]
    write_job(tmp_path, Target(), groups, progress=lambda share, text: None)
    measure_job(tmp_path, lambda share, text: None, lock=tmp_path / ".lock")
    assert told == [0.0, 20.0]
    job = json.loads((tmp_path / JOB_FILE).read_text())
    for one in job["groups"]:
        del one["warmup_ms"]
    (tmp_path / JOB_FILE).write_text(json.dumps(job))
    measure_job(tmp_path, lambda share, text: None, lock=tmp_path / ".lock")
    assert told[2:] == [0.0, 0.0]


@pytest.mark.parametrize("what", ["no locks there", "not to be written", "no locks while waiting"])
def test_where_there_is_no_lock_it_measures_all_the_same(tmp_path, monkeypatch, what):
    fcntl = pytest.importorskip("fcntl")
    write_job(tmp_path, Target(), [group("only")], progress=lambda share, text: None)

    def flock(stream, operation):
        busy = what == "no locks while waiting" and operation & fcntl.LOCK_NB
        raise BlockingIOError(errno.EAGAIN, "busy") if busy else OSError(errno.ENOLCK, "No locks available")

    lock = tmp_path / ".lock"
    if what == "not to be written":
        lock.mkdir()
    else:
        monkeypatch.setattr(fcntl, "flock", flock)
    said = []
    measure_job(tmp_path, lambda share, text: said.append(text), lock=lock)
    assert json.loads((tmp_path / RESULT_FILE).read_text())["groups"].keys() == {"only"}
    waited = any("waiting for another measurement" in text for text in said)
    assert waited is (what == "no locks while waiting")
