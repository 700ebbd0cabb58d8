"""The commands as a user runs them: output, errors, exit codes."""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import tomli_w
import torch

import nat2deploy as package
from nat2deploy.cli import main
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.network import SuperNetwork

NAT_M1 = {
    "ks": [3, 3, 3, 3, 3, 5, 5, 3, 5, 5, 5, 5, 5, 3, 3],
    "e": [3, 3, 3, 4, 4, 4, 4, 3, 4, 3, 3, 6, 6, 6, 6],
    "d": [2, 3, 3, 3, 4],
    "r": 224,
    "w": 1.0,
}


# In another current folder a process would find the installed package, which may not be this one.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}


def nat2deploy(*arguments, cwd=None):
    command = [sys.executable, "-m", "nat2deploy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT)


@pytest.fixture
def here(monkeypatch, capfd, caplog):
    """As ``nat2deploy``, but in this process: most of a new one's seconds go to importing libraries."""

    def run(*arguments, cwd=None):
        command = ["nat2deploy", *map(str, arguments)]
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as warned:
            patch.setattr(sys, "argv", command)
            if cwd is not None:
                patch.chdir(cwd)
            _show_warnings_as_python_does()
            capfd.readouterr()
            caplog.clear()
            with pytest.raises(SystemExit) as ended:
                main()
        printed = capfd.readouterr()
        # pytest keeps warnings and log records to itself; a process would print them among the errors.
        kept = [f"{each.category.__name__}: {each.message}\n" for each in warned]
        kept += [f"{text}\n" for text in caplog.messages]
        return subprocess.CompletedProcess(
            command, ended.value.code, printed.out, "".join([*kept, printed.err])
        )

    return run


def _show_warnings_as_python_does():
    warnings.resetwarnings()
    for quiet in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", quiet)


def test_costs_of_nat_m1():
    done = nat2deploy("costs", "--space", "ofa-mbv3", "--arch", json.dumps(NAT_M1), "--json")
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    assert costs["macs"] == pytest.approx(225e6, rel=0.02)
    assert costs["params"] == pytest.approx(6.0e6, rel=0.02)
    assert "latency_ms" not in costs


def test_costs_of_twenty_values_ignore_absent_layers(here):
    ks, e = iter(NAT_M1["ks"]), iter(NAT_M1["e"])
    padded = {"ks": [], "e": [], **{key: NAT_M1[key] for key in "drw"}}
    for depth in NAT_M1["d"]:
        padded["ks"] += [next(ks) if i < depth else 7 for i in range(4)]
        padded["e"] += [next(e) if i < depth else 6 for i in range(4)]
    short = here("costs", "--space", "ofa-mbv3", "--arch", json.dumps(NAT_M1), "--json")
    long = here("costs", "--space", "ofa-mbv3", "--arch", json.dumps(padded), "--json")
    assert json.loads(short.stdout) == json.loads(long.stdout)


def test_devices_lists_what_can_be_measured_and_why_the_rest_cannot(here):
    done = here("devices", "--json")
    listed = {b["name"]: b for b in json.loads(done.stdout)["backends"]}
    assert listed["onnxruntime"]["available"] and listed["torch"]["available"]
    assert all(b["reason"] for b in listed.values())


def test_the_fastest_backend_is_chosen_told_and_profiled(here, tmp_path, tiny_space_toml):
    few_blocks = tiny_space_toml.replace("[0.5, 1.0]", "[0.5]").replace("[3, 5, 7]", "[3, 5]")
    (tmp_path / "tiny.toml").write_text(few_blocks)
    limits = ("--interval", 0.5, "--time-limit", 5, "--calibration", 8, "--held-out", 8)
    words = ("profile", "--backend", "auto", "--space", "tiny.toml", "--resolutions", 16, *limits)
    done = here(*words, "--out", "t.json", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table == json.loads((tmp_path / "t.json").read_text())
    lines = done.stderr.splitlines()
    (first,) = (index for index, line in enumerate(lines) if line.startswith("backend "))
    assert f"{table['target']['backend']}: the fastest on 6 networks" in lines[first]
    assert lines[first + 1].split() == [table["target"]["backend"], "1.00"]
    assert float(lines[first + 2].split()[1]) >= 1


def test_help_and_version(here):
    assert "quickstart" in nat2deploy("--help").stdout
    assert nat2deploy("--version").stdout.strip()
    verbs = ("profile", "train", "search", "finetune", "export", "verify", "bench", "run", "costs")
    for verb in (*verbs, "report", "dashboard"):
        assert here(verb, "--help").returncode == 0


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    space = load_space("nano").restrict(resolutions=(28,))
    path = tmp_path_factory.mktemp("supernet") / "w.safetensors"
    save_supernet(path, SuperNetwork(space, 1.0, 10), SuperNetworkInfo(space=space, width=1.0, classes=10))
    return path


@pytest.fixture
def inputs(supernet, tmp_path):
    """A folder of good and bad inputs, to work in."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "unknown.toml").write_text('data = "digits"\nbudget = []\n')
    target = '[target]\ndevice = "cuda"\nbackend = "tensorrt"\nprecision = "fp16"\n'
    (tmp_path / "gpu.toml").write_text(f'name = "gpu"\n{target}')
    bf16 = target.replace("tensorrt", "torch").replace("fp16", "bf16")
    (tmp_path / "gpu-run.toml").write_text(f'data = "digits"\n{bf16}')
    shutil.copy(supernet, tmp_path)
    return tmp_path


def _assert_refused(run, arguments, words, inputs):
    """One line, exit code 2, and nothing written."""
    before = sorted(p.name for p in inputs.rglob("*"))
    done = run(*arguments, cwd=inputs)
    assert done.returncode == 2, done.stderr
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and words in errors[0]
    assert done.stdout == ""
    assert sorted(p.name for p in inputs.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile", "--device", "cuda:9", "--out", "t.json"], "cuda:9"),
        (["profile", "--device", "cuda", "--threads", "2", "--out", "t.json"], "2 threads mean nothing on a GPU"),
        (["profile", "--device", "cuda", "--backend", "openvino", "--out", "t.json"], "openvino does not run on cuda:0"),
        (["profile", "--backend", "tensorrt", "--out", "t.json"], "tensorrt does not run on cpu"),
        (["profile", "--profile", "gpu.toml", "--device", "ssh://pi@pi", "--out", "t.json"], "on their CPU only"),
        (["table", "kit", "--profile", "gpu.toml", "--out", "k.zip"], "cuda:0 cannot be measured on another device"),
        (["run", "gpu-run.toml"], "cuda:0 torch bf16, batch 1; a bundle for onnxruntime on cuda:0 holds fp32 and fp16, not bf16"),
        (["profile", "--space", "nono", "--out", "t.json"], "nono"),
        (["profile", "--resolutions", "28,29", "--out", "t.json"], "29"),
        (["profile", "--resolutions", "big", "--out", "t.json"], "big"),
        (["profile", "--threads", "1000", "--out", "t.json"], "1000"),
        (["profile", "--out", "t.txt"], ".json"),
        (["profile", "--backend", "torch", "--precision", "int8", "--out", "t.json"], "torch runs fp32, not int8"),
        (["profile", "--backend", "auto", "--precision", "int3", "--out", "t.json"], "no backend runs 'int3'"),
        (["profile", "--backend", "auto", "--out", "t.txt"], ".json"),
        (["table", "show", "missing.json"], "missing.json"),
        (["table", "validate", "missing.json"], "missing.json"),
        (["table", "diff", "broken.json", "missing.json"], "broken.json"),
        (["table", "merge", "broken.json", "missing.json", "--out", "t.json"], "broken.json"),
        (["table", "merge", "broken.json", "missing.json", "--out", "t.txt"], ".json"),
        (["table", "plot", "broken.json", "--out", "t.png"], "broken.json"),
        (["costs", "--arch", "{"], "JSON"),
        (["costs", "--arch", '{"ks": 4, "e": 3, "d": 2, "r": 224, "w": 1.0}'], "ks 4"),
        (["costs", "--space", "nano", "--arch", '{"ks": 3, "e": 2, "d": 1, "r": 28}', "--table", "broken.json"], "broken"),
        (["train", "--data", "imagefolder:empty", "--out", "x.safetensors"], "empty"),
        (["train", "--data", "digit", "--out", "x.safetensors"], "digits"),
        (["train", "--data", "digits", "--out", "x.pt"], ".safetensors"),
        (["train", "--out", "x.safetensors"], "--data"),
        (["train", "--data", "digits", "--schedule", "paper", "--out", "x.safetensors"], "schedule"),
        (["train", "--data", "digits", "--teacher", "none", "--out", "x.safetensors"], "teacher"),
        (["train", "--data", "digits", "--ema", "2", "--out", "x.safetensors"], "ema"),
        (["train", "--data", "digits", "--device", "gpu", "--out", "x.safetensors"], "device"),
        (["train", "--config", "unknown.toml", "--out", "x.safetensors"], "budget"),
        (["train", "--config", "unknown.toml", "--epochs", "3", "--out", "x.safetensors"], "leave out --epochs"),
        (["search", "--config", "gpu-run.toml", "--seed", "3", "--out", "run"], "leave out --seed"),
        (["search", "--config", "gpu-run.toml", "--out", "run"], "config gpu-run.toml: target: unknown key"),
        (["search", "--supernet", "w.safetensors", "--out", "run"], "--config"),
        (["costs", "--space", "nano-ee-x", "--arch", "{}"], "nano-ee-x"),
        (["costs", "--space", "nano-ee-d", "--arch", '{"ks": 3, "e": 2, "d": 1, "r": 28, "exits": [5]}'], "exits 5"),
        (["costs", "--space", "nano", "--arch", '{"ks": 3, "e": 2, "d": [1, 1], "r": 28}'], "4 stages"),
        (["supernet", "evaluate", "w.safetensors", "--data", "digits", "--split", "train"], "--split"),
        (["supernet", "info", "broken.json"], "broken.json"),
        (["supernet", "info", "nano-xx-fashion"], "nano-xx-fashion"),
        (["train", "--data", "digits", "--start", "none", "--out", "x.safetensors"], "none"),
        (["train", "--data", "digits", "--space", "nano-ee-d", "--start", "w.safetensors", "--out", "x.safetensors"], "'nano'"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "latency.p98<=5ms", "--out", "run"], "latency.p98"),
        (["supernet", "import", "broken.json", "--out", "x.safetensors"], "broken.json"),
        (["supernet", "import", "none.pth", "--out", "x.safetensors"], "none.pth"),
        (["supernet", "import", "none.pth", "--out", "x.pth"], ".safetensors"),
        (["supernet", "import", "w.safetensors", "--space", "nano", "--out", "x.safetensors"], "ofa-mbv3"),
        (["supernet", "import", "w.safetensors", "--classes", "0", "--out", "x.safetensors"], "--classes"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "latency<5", "--out", "run"], "latency<5"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "latency<=5ms", "--out", "run"], "--table"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--table", "broken.json", "--out", "run"], "broken.json"),
        (["search", "--supernet", "w.safetensors", "--data", "imagefolder:empty", "--out", "run"], "empty"),
        (["search", "--supernet", "none.safetensors", "--data", "digits", "--out", "run"], "none.safetensors"),
        (["search", "--space", "ofa-mbv3", "--supernet", "w.safetensors", "--data", "digits", "--out", "run"], "nano"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--preset", "nat3", "--out", "run"], "preset"),
        (["search", "--data", "digits", "--out", "run"], "--supernet"),
        (["search", "--supernet", "w.safetensors", "--supernet", "w.safetensors", "--data", "digits", "--out", "run"], "of width 1"),
        (["search", "--data", "digits", "--from", "norun", "--out", "run"], "norun"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--table", "a=x", "--table", "a=y", "--out", "run"], "'x'"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "latency@pi5<=1ms", "--out", "run"], "'pi5'"),
        (["finetune", "norun"], "norun"),
        (["export", "norun", "--out", "b"], "norun"),
        (["export", "norun", "--engine", "tensorflow", "--out", "b"], "engine"),
        (["verify", "nobundle"], "nobundle"),
        (["bench", "nobundle"], "nobundle"),
        (["table", "validate", "broken.json", "--time-limit", "nan"], "--time-limit"),
        (["profile", "--time-limit", "inf", "--out", "t.json"], "--time-limit: Input should be a finite number"),
        (["profile", "--resolutions", "9" * 400, "--out", "t.json"], "write whole numbers"),
        (["run", "missing.toml"], "missing.toml"),
        (["run", "unknown.toml"], "budget"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_line_code_2_and_writes_nothing(arguments, words, inputs, here):
    _assert_refused(here, arguments, words, inputs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search"], "nat2deploy search --help`"),
        (["serch"], "'search'"),
        (["frobnicate"], "nat2deploy --help`"),
        (["table", "show", "broken.json"], "broken.json"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "macs<=1k", "--out", "run"], "cheapest"),
    ],
)  # fmt: skip
def test_bad_input_to_a_process_of_its_own(arguments, words, inputs):
    """A wrong option, a bad file, and the check that comes after all imports and reading."""
    _assert_refused(nat2deploy, arguments, words, inputs)


@pytest.mark.parametrize("group", [[], ["table"], ["supernet"]])
def test_a_group_alone_prints_its_help_and_no_error(group, here):
    done = here(*group)
    assert done.returncode == 2 and "Commands" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("given", [("--epochs", 12), ("--learning-rate", 0.01)])
def test_epochs_and_rates_are_refused_beside_a_schedule_that_has_its_own(given, tmp_path, here):
    command = ("train", "--data", "digits", "--schedule", "eps-paper", *given, "--out", "w.safetensors")
    done = here(*command, cwd=tmp_path)
    assert done.returncode == 2 and f"leave out {given[0]}" in " ".join(done.stderr.split())
    assert not any(tmp_path.iterdir())


def test_a_variant_is_trained_with_every_option_and_judged(tmp_path, here):
    space = {**load_space("nano-ee-d").model_dump(mode="json"), "resolutions": [16], "depths": [1, 2, 3]}
    space["name"], space["stages"] = "tiny-ee-d", space["stages"][:2]
    for part in (space["stem"], space["first_block"], *space["stages"]):
        part["channels"] = 8
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(space))
    options = ("--teacher", "extracted", "--sandwich", "--ema", 0.9, "--clip", 1, "--curve", "curve")
    size = ("--epochs", 0.6, "--batch-size", 64, "--out", "w.safetensors")
    done = here("train", "--space", "tiny.toml", "--data", "digits", *options, *size, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    phases = ["full", "kernel", "exits-1", "depth-1", "depth-2", "expansion-1", "expansion-2"]
    assert json.loads(done.stdout)["phases"] == phases
    points = [json.loads(line) for line in (tmp_path / "curve" / "curve.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(point["phase"] for point in points)) == phases
    assert points[-1]["epochs"] == pytest.approx(0.6)
    assert (tmp_path / "curve" / "curve.png").stat().st_size > 1000

    done = here(
        "supernet", "evaluate", "w.safetensors", "--data", "digits", "--networks", 3, "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [network["role"] for network in json.loads(done.stdout)] == [
        "smallest",
        "largest",
        *["random"] * 3,
    ]
    assert (
        "3 random"
        in here(
            "supernet", "evaluate", "w.safetensors", "--data", "digits", "--networks", 3, cwd=tmp_path
        ).stdout
    )


def test_import_of_a_once_for_all_checkpoint(tmp_path, here):
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3  # takes seconds

    choices = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    torch.save({"state_dict": OFAMobileNetV3(width_mult=1.2, **choices).state_dict()}, tmp_path / "ofa.pth")

    def supernet(*arguments):
        return here("supernet", *arguments, cwd=tmp_path)

    done = supernet("import", "ofa.pth", "--space", "ofa-mbv3", "--out", "w.safetensors", "--json")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    info = json.loads(done.stdout)
    assert (info["width"], info["classes"], info["data"]) == (1.2, 1000, "imagenet")
    assert json.loads(supernet("info", "w.safetensors", "--json").stdout) == info
    assert "imported" in supernet("info", "w.safetensors").stdout
    assert supernet("import", "ofa.pth", "--out", "w.safetensors").returncode == 0

    seven = ("import", "ofa.pth", "--classes", "7", "--seed", "3")
    refused = supernet(*seven, "--out", "w.safetensors")
    assert refused.returncode == 2 and "another super-network" in refused.stderr
    done = supernet(*seven, "--out", "seven.safetensors")
    assert done.returncode == 0 and "unknown, 7 classes" in done.stdout


def test_a_table_for_another_space_is_refused(request, here):
    shipped = sorted((request.config.rootpath / "latency_tables").glob("nano*.json"))
    assert shipped
    arch = json.dumps(NAT_M1)
    done = here("costs", "--space", "ofa-mbv3", "--arch", arch, "--table", shipped[0])
    assert done.returncode == 2 and "nano" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_profiles_by_name(here, tmp_path):
    listed = here("profiles", cwd=tmp_path)
    assert listed.returncode == 0 and "no table of ours" in listed.stdout
    by_name = {one["name"]: one for one in json.loads(here("profiles", "--json", cwd=tmp_path).stdout)}
    assert "nano-x86-1-thread" in by_name["x86-1-thread"]["tables"]
    assert by_name["raspberry-pi-5-int8"]["target"]["precision"] == "int8"
    words = ("--space", "nono", "--out", "t.json")
    done = here("profile", "--profile", "android-big-core", *words, cwd=tmp_path)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    device, table, error = done.stderr.splitlines()
    assert "power mode: battery saver off" in device and "no table of ours" in table
    assert error.startswith("error: ")
    assert "no table" not in here("profile", "--profile", "x86-1-thread", *words, cwd=tmp_path).stderr
    unknown = here("profile", "--profile", "toaster", *words, cwd=tmp_path)
    assert unknown.stderr.startswith("error: no profile 'toaster'")


def test_what_a_profile_decides_on_is_refused_beside_it(here, tmp_path):
    words = ("--profile", "raspberry-pi-5", "--space", "nono", "--out")
    for given, named in (
        (("profile", *words, "t.json", "--threads", 2), "--threads"),
        (("profile", *words, "t.json", "--batch", 1, "--precision", "int8"), "--precision, --batch"),
        (("profile", *words, "t.json", "--device", "cpu"), "--device"),
        (("table", "kit", *words, "k.zip", "--threads", 2), "--threads"),
    ):
        done = here(*given, cwd=tmp_path)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr == f"error: --profile decides on {named}; leave out the one or the other\n"
    by_ssh = here("profile", *words, "t.json", "--device", "ssh://pi@raspberrypi", cwd=tmp_path)
    assert "error: no space 'nono'" in by_ssh.stderr


def test_a_command_of_another_group_is_pointed_to(here, tmp_path):
    done = here("profile", "kit", "--out", "k.zip", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.rstrip().endswith("nat2deploy table kit`?")
    done = here("profile", "kitchen", "--out", "k.zip", cwd=tmp_path)
    assert done.returncode == 2 and "profile --help`" in done.stderr


def test_a_kit_of_a_profile_says_what_a_profile_says(here, tmp_path):
    done = here(
        "table", "kit", "--profile", "android-big-core", "--space", "nono", "--out", "k.zip", cwd=tmp_path
    )
    device, table, error = done.stderr.splitlines()
    assert "power mode: battery saver off" in device and "no table of ours" in table
    assert error.startswith("error: no space")


def test_help_is_quick():
    """A generous bound that importing torch (seconds) would break; figures are in benchmarks."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        nat2deploy("--help")
        times.append(time.perf_counter() - began)
    assert min(times) < 1.5
