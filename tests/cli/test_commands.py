"""The commands as a user runs them: output, errors, exit codes."""

import json
import subprocess
import sys
import time

import pytest

NAT_M1 = {
    "ks": [3, 3, 3, 3, 3, 5, 5, 3, 5, 5, 5, 5, 5, 3, 3],
    "e": [3, 3, 3, 4, 4, 4, 4, 3, 4, 3, 3, 6, 6, 6, 6],
    "d": [2, 3, 3, 3, 4],
    "r": 224,
    "w": 1.0,
}


def nat2deploy(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "nat2deploy", *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


def test_costs_of_nat_m1():
    done = nat2deploy("costs", "--space", "ofa-mbv3", "--arch", json.dumps(NAT_M1), "--json")
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    assert costs["macs"] == pytest.approx(225e6, rel=0.02)
    assert costs["params"] == pytest.approx(6.0e6, rel=0.02)
    assert "latency_ms" not in costs


def test_costs_of_twenty_values_ignore_absent_layers():
    ks, e = iter(NAT_M1["ks"]), iter(NAT_M1["e"])
    padded = {"ks": [], "e": [], **{key: NAT_M1[key] for key in "drw"}}
    for depth in NAT_M1["d"]:
        padded["ks"] += [next(ks) if i < depth else 7 for i in range(4)]
        padded["e"] += [next(e) if i < depth else 6 for i in range(4)]
    short = nat2deploy("costs", "--space", "ofa-mbv3", "--arch", json.dumps(NAT_M1), "--json")
    long = nat2deploy("costs", "--space", "ofa-mbv3", "--arch", json.dumps(padded), "--json")
    assert json.loads(short.stdout) == json.loads(long.stdout)


def test_devices_lists_what_can_be_measured_and_why_the_rest_cannot():
    done = nat2deploy("devices", "--json")
    listed = {b["name"]: b for b in json.loads(done.stdout)["backends"]}
    assert listed["onnxruntime"]["available"] and listed["torch"]["available"]
    assert all(b["reason"] for b in listed.values())


def test_help_and_version():
    assert "quickstart" in nat2deploy("--help").stdout
    assert nat2deploy("--version").stdout.strip()
    for verb in ("profile", "train", "search", "finetune", "export", "verify", "bench", "run", "costs"):
        assert nat2deploy(verb, "--help").returncode == 0


def _supernet(folder):
    from nat2deploy.space.search_space import load_space
    from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
    from nat2deploy.supernet.network import SuperNetwork

    space = load_space("nano").restrict(resolutions=(28,))
    path = folder / "w.safetensors"
    save_supernet(path, SuperNetwork(space, 1.0, 10), SuperNetworkInfo(space=space, width=1.0, classes=10))
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile", "--device", "cuda:9", "--out", "t.json"], "cuda:9"),
        (["profile", "--space", "nono", "--out", "t.json"], "nono"),
        (["profile", "--resolutions", "28,29", "--out", "t.json"], "29"),
        (["profile", "--resolutions", "big", "--out", "t.json"], "big"),
        (["profile", "--threads", "1000", "--out", "t.json"], "1000"),
        (["profile", "--out", "t.txt"], ".json"),
        (["table", "show", "broken.json"], "broken.json"),
        (["table", "show", "missing.json"], "missing.json"),
        (["costs", "--arch", "{"], "JSON"),
        (["costs", "--arch", '{"ks": 4, "e": 3, "d": 2, "r": 224, "w": 1.0}'], "ks 4"),
        (["costs", "--space", "nano", "--arch", '{"ks": 3, "e": 2, "d": 1, "r": 28}', "--table", "broken.json"], "broken"),
        (["train", "--data", "imagefolder:empty", "--out", "x.safetensors"], "empty"),
        (["train", "--data", "digit", "--out", "x.safetensors"], "digits"),
        (["train", "--data", "digits", "--out", "x.pt"], ".safetensors"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "latency<5", "--out", "run"], "latency<5"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "latency<=5ms", "--out", "run"], "--table"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--budget", "macs<=1k", "--out", "run"], "cheapest"),
        (["search", "--supernet", "w.safetensors", "--data", "digits", "--table", "broken.json", "--out", "run"], "broken.json"),
        (["search", "--supernet", "w.safetensors", "--data", "imagefolder:empty", "--out", "run"], "empty"),
        (["search", "--supernet", "none.safetensors", "--data", "digits", "--out", "run"], "none.safetensors"),
        (["search", "--space", "ofa-mbv3", "--supernet", "w.safetensors", "--data", "digits", "--out", "run"], "nano"),
        (["finetune", "norun"], "norun"),
        (["export", "norun", "--out", "b"], "norun"),
        (["export", "norun", "--engine", "tensorflow", "--out", "b"], "engine"),
        (["verify", "nobundle"], "nobundle"),
        (["bench", "nobundle"], "nobundle"),
        (["run", "missing.toml"], "missing.toml"),
        (["run", "unknown.toml"], "budget"),
        (["search"], "--supernet"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_line_code_2_and_writes_nothing(arguments, words, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "unknown.toml").write_text('data = "digits"\nbudget = []\n')
    _supernet(tmp_path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    done = nat2deploy(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and words in errors[0]
    assert done.stdout == ""
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_a_table_for_another_space_is_refused(tmp_path, request):
    shipped = sorted((request.config.rootpath / "latency_tables").glob("nano*.json"))
    assert shipped
    arch = json.dumps(NAT_M1)
    done = nat2deploy("costs", "--space", "ofa-mbv3", "--arch", arch, "--table", shipped[0])
    assert done.returncode == 2 and "nano" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_help_is_quick():
    """A generous bound that importing torch (seconds) would break; figures are in benchmarks."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        nat2deploy("--help")
        times.append(time.perf_counter() - began)
    assert min(times) < 1.5
