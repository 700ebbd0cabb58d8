"""A kit from the command to the table: made here, measured by a bare Python, brought back."""

import json
import shutil
import subprocess
import sys
import time
import zipfile

import pytest
from devices import bare_environment

import nat2deploy.measure.plan as plan_module
from nat2deploy.agent.job import JOB_FILE, RESULT_FILE
from nat2deploy.cli import main
from nat2deploy.cost.table import load_table
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.remote.kit import KitSettings, read_kit
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target, fingerprint


def command(monkeypatch, capsys, *arguments):
    """Run nat2deploy; return its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["nat2deploy", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_file, device_python):
    """A kit, and the folder in which it was measured after being killed in the middle."""
    folder = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "_BLOCKS_AT_ONCE", 12)
        words = ["--interval", "0.5", "--time-limit", "5", "--calibration", "8", "--held-out", "8"]
        patch.setattr(
            sys,
            "argv",
            [
                "nat2deploy",
                "table",
                "kit",
                "--space",
                str(tiny_file),
                *words,
                "--out",
                str(folder / "kit.zip"),
            ],
        )
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    device = folder / "device"
    with zipfile.ZipFile(folder / "kit.zip") as archive:
        archive.extractall(device)

    def start():
        return subprocess.Popen(
            [device_python, "measure.py"],
            cwd=device,
            env=bare_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    killed = start()
    deadline = time.monotonic() + 120
    while not (device / RESULT_FILE).exists():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    first = json.loads((device / RESULT_FILE).read_text())["groups"]
    again = start()
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    return folder, device, first, said


def test_a_killed_kit_goes_on(made):
    _, device, first, said = made
    assert "going on: " in said
    result = json.loads((device / RESULT_FILE).read_text())
    assert list(result["groups"]) == ["blocks 1 to 12 of 23", "blocks 13 to 23 of 23", "networks"]
    assert {name: result["groups"][name] for name in first} == first


def test_the_kit_says_what_to_do_and_is_the_same_each_time(made, tiny_file, monkeypatch, capsys, tmp_path):
    folder, device, _, _ = made
    readme = (device / "README.txt").read_text()
    assert "python3 measure.py" in readme
    assert f"nat2deploy table import {RESULT_FILE} --kit kit.zip --out table.json" in readme
    monkeypatch.setattr(plan_module, "_BLOCKS_AT_ONCE", 12)
    words = ("--interval", 0.5, "--time-limit", 5, "--calibration", 8, "--held-out", 8)
    out = tmp_path / "kit.zip"
    code, _ = command(monkeypatch, capsys, "table", "kit", "--space", tiny_file, *words, "--out", out)
    assert code == 0
    assert out.read_bytes() == (folder / "kit.zip").read_bytes()


def test_the_kit_quotes_a_name_that_a_shell_would_split(tiny_file, monkeypatch, capsys, tmp_path):
    out = tmp_path / "my kit; x.zip"
    words = ("--space", tiny_file, "--calibration", 8, "--held-out", 8, "--out", out)
    code, printed = command(monkeypatch, capsys, "table", "kit", *words)
    assert code == 0, printed.err
    with zipfile.ZipFile(out) as archive:
        assert "--kit 'my kit; x.zip' --out table.json" in archive.read("README.txt").decode()


@pytest.fixture
def imported(made, monkeypatch, capsys, tmp_path):
    """Import a result, changed before, with a kit, changed before."""
    folder, device, _, _ = made
    monkeypatch.setattr(plan_module, "_BLOCKS_AT_ONCE", 12)
    shutil.copy(folder / "kit.zip", tmp_path / "kit.zip")
    shutil.copy(device / RESULT_FILE, tmp_path / RESULT_FILE)

    def run(change=None, *words):
        path = tmp_path / RESULT_FILE
        if change is not None:
            text = path.read_text()
            value = json.loads(text)
            changed = change(value)
            path.write_text(changed if isinstance(changed, str) else json.dumps(value))
        arguments = ("table", "import", path, "--kit", tmp_path / "kit.zip", "--out", tmp_path / "t.json")
        return command(monkeypatch, capsys, *arguments, *words)

    run.folder = tmp_path
    return run


def test_the_table_is_the_devices(imported):
    code, printed = imported(lambda value: value["machine"].update(cpu="A board", cores=64), "--json")
    assert code == 0, printed.err
    table = load_table(imported.folder / "t.json")
    assert json.loads(printed.out) == table.model_dump(mode="json")
    assert table.fingerprint.cpu == "A board"
    assert not table.fingerprint.same_machine(fingerprint())
    assert table.fingerprint.libraries["torch"] == "not installed"
    assert table.calibration.networks == 8
    assert len(table.entries) == 23


def test_a_machines_words_are_shown_and_not_obeyed(imported):
    code, printed = imported(lambda value: value["machine"].update(cpu="A [/] board [red]"))
    assert code == 0, printed.err
    assert "A [/] board [red], " in printed.out


def first_group(value):
    return next(iter(value["groups"].values()))


def first_summary(value):
    return next(iter(first_group(value)["summaries"].values()))


def rename(value):
    summaries = first_group(value)["summaries"]
    converged = first_group(value)["converged"]
    name = next(iter(summaries))
    summaries["another"], converged["another"] = summaries.pop(name), converged.pop(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: "{", "is not JSON"),
        (lambda value: "[1]", "top level"),
        (lambda value: "[" * 100_000, "is not JSON"),
        (lambda value: "NaN", "top level"),
        (lambda value: value.update(job="0" * 64), "of another kit"),
        (lambda value: value.update(job="../../x"), "job: "),
        (lambda value: value.update(more=1), "more: "),
        (lambda value: value.update(form=2), "form: "),
        (lambda value: value["groups"].popitem(), "lack 'networks'; start measure.py again"),
        (lambda value: value["machine"].update(cpu="a\x1b[2J"), "not printable"),
        (lambda value: value["machine"].update(cpu="a" * 10_000), "not printable"),
        (lambda value: value["machine"].update(cores=0), "no cores"),
        (lambda value: value["machine"].update(driver="a\x1b[2J"), "not printable"),
        (lambda value: value["machine"].update(mhz=-1), "mhz: "),
        (lambda value: first_group(value)["clocks"][0].update(power_mode="\n"), "not printable"),
        (lambda value: first_group(value).update(energy_mj={"a": 1.0}), "energies are of different"),
        (lambda value: first_group(value).update(energy_mj={"a": -1.0}), "energy_mj.a: "),
        (lambda value: first_summary(value).update(median_ms=-1), "median_ms: "),
        (lambda value: first_summary(value).update(median_ms=float("inf")), "median_ms: "),
        (lambda value: first_summary(value).update(p99_ms=1e308), "p99_ms: "),
        (lambda value: first_summary(value).update(ci_low_ms=1e9), "outside its confidence interval"),
        (lambda value: first_summary(value).update(p99_ms=1e-9), "not in ascending order"),
        (lambda value: first_summary(value).update(samples=0), "samples: "),
        (lambda value: first_group(value).update(reference_ms=None), "reference_ms: "),
        (lambda value: first_group(value)["converged"].popitem(), "different candidates"),
        (rename, "is not what was asked for"),
    ],
)
def test_a_result_that_does_not_fit_is_one_line(imported, change, words):
    code, printed = imported(change)
    assert code == 2 and printed.out == ""
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0], printed.err
    assert not (imported.folder / "t.json").exists()


def repack(path, change):
    """Write the zip again with a changed job."""
    with zipfile.ZipFile(path) as archive:
        job = json.loads(archive.read("job.json"))
    change(job)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("job.json", json.dumps(job))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "no kit at"),
        (lambda path: path.write_bytes(b"PK"), "is no kit"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "is no kit"),
        (lambda path: repack(path, lambda job: job.pop("settings")), "is no kit"),
        (
            lambda path: repack(path, lambda job: job["settings"].update(version="9.9")),
            "made by nat2deploy 9.9",
        ),
        (lambda path: repack(path, lambda job: job["settings"].update(seed=-1)), "seed: "),
        (lambda path: repack(path, lambda job: job.update(threads=2)), "of another kit"),
    ],
)
def test_a_kit_that_does_not_fit_is_one_line(imported, damage, words):
    damage(imported.folder / "kit.zip")
    code, printed = imported()
    assert code == 2 and printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and words in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--out", "kit.json"), "a kit is a .zip file"),
        (("--out", "kit.zip", "--space", "nono"), "nono"),
        (("--out", "kit.zip", "--precision", "int3"), "precision"),
        (("--out", "kit.zip", "--resolutions", "29"), "29"),
    ],
)
def test_a_kit_that_cannot_be_made_is_one_line(monkeypatch, capsys, tmp_path, words, line):
    monkeypatch.chdir(tmp_path)
    code, printed = command(monkeypatch, capsys, "table", "kit", *words)
    assert code == 2 and line in printed.err and len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_before_anything_is_exported(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr("nat2deploy.remote.kit.write_job", lambda *_, **__: pytest.fail("exported"))
    code, printed = command(monkeypatch, capsys, "table", "kit", "--out", tmp_path / "file" / "kit.zip")
    assert code == 2 and "cannot write" in printed.err and len(printed.err.splitlines()) == 1


def test_the_ending_of_a_kit_may_be_in_capitals(monkeypatch, capsys, tmp_path):
    (tmp_path / "KIT.ZIP").mkdir()
    code, printed = command(monkeypatch, capsys, "table", "kit", "--out", tmp_path / "KIT.ZIP")
    assert code == 2 and "is a folder" in printed.err


def test_a_kit_is_much_smaller_than_what_it_unpacks_to(made):
    folder, _, _, _ = made
    with zipfile.ZipFile(folder / "kit.zip") as archive:
        models = [entry for entry in archive.infolist() if entry.filename.endswith(".onnx")]
    assert sum(m.compress_size for m in models) < 0.5 * sum(m.file_size for m in models)


def test_a_kit_holds_its_whole_plan(made, tiny_file):
    folder, _, _, _ = made
    plan = ProfilePlan(
        load_space(str(tiny_file)),
        Target(),
        precision=0.5,
        time_limit_s=5.0,
        calibration_networks=8,
        held_out_networks=8,
    )
    assert read_kit(folder / "kit.zip").plan == plan
    every = ProfilePlan(load_space("nano"), Target(threads=64, batch=2), 7, 0.02, 9.0, 30, 31, 2)
    again = KitSettings.model_validate_json(KitSettings.of(every).model_dump_json()).plan()
    assert again == every


def test_a_kit_of_a_profile_holds_its_warm_up_and_says_its_power_mode(
    made, tiny_file, monkeypatch, capsys, tmp_path
):
    (tmp_path / "board.toml").write_text(
        """
name = "board"
power_mode = "governor performance"
warmup_ms = 15.0
[target]
threads = 64
"""
    )
    words = ("--interval", 0.5, "--time-limit", 5, "--calibration", 8, "--held-out", 8)
    out = tmp_path / "kit.zip"
    code, printed = command(
        monkeypatch, capsys,
        "table", "kit", "--space", tiny_file, "--profile", tmp_path / "board.toml", *words, "--out", out,
    )  # fmt: skip
    assert code == 0
    device, table, *_ = printed.err.splitlines()
    assert device == "profile board: power mode: governor performance" and "no table of ours" in table
    assert read_kit(out).plan.warmup_ms == 15.0
    with zipfile.ZipFile(out) as archive:
        readme = archive.read("README.txt").decode()
        job = json.loads(archive.read(JOB_FILE))
    assert "Power mode of the device: governor performance.\n" in readme
    assert {group["warmup_ms"] for group in job["groups"]} == {15.0}
    assert "Power mode" not in (made[1] / "README.txt").read_text()
