import json
import os
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.errors import UserError
from nat2deploy.machine import lasting_facts
from nat2deploy.target import Fingerprint, Gpu, Target, fingerprint, load_profile, make_target, make_targets

PROFILE = """
name = "mine"
warmup_ms = 5.0

[target]
threads = 2
"""


def make(**change) -> Target:
    words = {"device": "cpu", "backend": "onnxruntime", "precision": "fp32", "threads": 1, "batch": 1}
    return make_target(**{**words, **change})


def test_every_shipped_profile_loads(repository):
    paths = sorted((repository / "profiles").glob("*.toml"))
    assert {"x86-1-thread", "x86-2-threads"} <= {path.stem for path in paths}
    for path in paths:
        profile = load_profile(path)
        assert profile.name == path.stem
        assert profile.description
        assert profile.power_mode


def test_a_profile_fills_in_what_it_leaves_out(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE)
    profile = load_profile(path)
    assert profile.target == Target(threads=2)
    assert (profile.warmup_ms, profile.description) == (5.0, "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threads = 2", "threads = 0", "target.threads: "),
        ("threads = 2", "batch = 5000", "target.batch: "),
        ("threads = 2", "cores = 2", "target.cores: unknown key"),
        (
            "threads = 2",
            'device = "toaster"',
            "target.device: 'toaster' is no device; give cpu, cuda or cuda:N",
        ),
        (
            "threads = 2",
            'device = "cuda:0"\nthreads = 2',
            "2 threads mean nothing on a GPU; leave threads at 1",
        ),
        ("threads = 2", 'device = "cuda"\nbackend = "openvino"', "backend openvino does not run on cuda:0"),
        (
            "threads = 2",
            'backend = "tensorrt"',
            "backend tensorrt does not run on cpu; choose from onnxruntime",
        ),
        ("threads = 2", 'backend = "tflite"', "target.backend: "),
        ("threads = 2", 'precision = "int3"', "target.precision: "),
        ("threads = 2", 'backend = "torch"\nprecision = "int8"', "backend torch runs fp32, not int8"),
        ("warmup_ms = 5.0", "warmup_ms = -1", "warmup_ms: "),
        ("warmup_ms = 5.0", "warmup_ms = true", "warmup_ms: Input should be a valid number"),
        ("threads = 2", 'threads = "2"', "target.threads: Input should be a valid integer"),
        ('name = "mine"', 'name = "mi\\u001b[31mne"', "name: write one line, without control characters"),
        ('name = "mine"', "", "name: Field required"),
        (
            "[target]",
            "[goal]",
            "goal: unknown key; choose from name, description, power_mode, warmup_ms, target",
        ),
        ("[target]", "[target", "is not TOML"),
    ],
)
def test_a_wrong_profile_says_where_and_what(tmp_path, old, new, message):
    path = tmp_path / "mine.toml"
    assert old in PROFILE
    path.write_text(PROFILE.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_profile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_profile_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no profile at"):
        load_profile(tmp_path / "absent.toml")


def test_words_make_a_target():
    assert make(backend="torch", batch=4) == Target(backend="torch", batch=4)
    assert make(precision="int8") == Target(precision="int8")
    assert make(backend="openvino", precision="bf16") == Target(backend="openvino", precision="bf16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "tpu"}, "device 'tpu' cannot be measured"),
        ({"device": "cuda:x"}, "device 'cuda:x' cannot be measured"),
        ({"device": "cuda", "backend": "torch", "threads": 2}, "2 threads mean nothing on a GPU"),
        (
            {"device": "cuda", "precision": "int8"},
            "backend onnxruntime runs fp32 and fp16 on cuda:0, not int8",
        ),
        ({"device": "cuda", "elsewhere": True}, "other machines are measured on their CPU only"),
        ({"backend": "tensorrt"}, "backend tensorrt does not run on cpu"),
        ({"device": ""}, "device '' cannot be measured"),
        (
            {"backend": "tflite"},
            "target: backend: no backend 'tflite'; choose from onnxruntime, openvino, torch, tensorrt, tensorrt-rtx",
        ),
        ({"precision": "fp64"}, "target: precision: "),
        ({"backend": "torch", "precision": "int8"}, "backend torch runs fp32, not int8"),
        ({"precision": "bf16"}, "backend onnxruntime runs fp32 and int8, not bf16"),
        ({"threads": 0}, "target: threads: "),
        ({"threads": -1}, "target: threads: "),
        ({"threads": 10_000}, "threads: 10000 asked for, this machine has"),
        ({"batch": 0}, "target: batch: "),
        ({"batch": 10_000}, "target: batch: "),
    ],
)
def test_words_that_make_no_target_are_user_errors(change, message):
    with pytest.raises(UserError) as caught:
        make(**change)
    assert message in str(caught.value)


def test_one_target_for_each_backend_that_runs_a_precision():
    def backends(precision):
        targets = make_targets("cpu", precision, 1, 4)
        assert {(t.device, t.precision, t.threads, t.batch) for t in targets} == {("cpu", precision, 1, 4)}
        return {target.backend for target in targets}

    assert backends("fp32") == {"onnxruntime", "openvino", "torch"}
    assert backends("int8") == {"onnxruntime", "openvino"}
    assert backends("bf16") == {"openvino"}
    with pytest.raises(UserError, match="no backend runs 'int4' on cpu; choose from fp32"):
        make_targets("cpu", "int4", 1, 1)
    with pytest.raises(UserError, match="device 'tpu'"):
        make_targets("tpu", "fp32", 1, 1)


def test_a_target_reads_as_one_line():
    assert str(Target()) == "cpu onnxruntime fp32, 1 thread, batch 1"
    assert str(Target(backend="torch", threads=4, batch=8)) == "cpu torch fp32, 4 threads, batch 8"
    gpu = Target(device="cuda", backend="tensorrt", precision="fp16", batch=8)
    assert str(gpu) == "cuda:0 tensorrt fp16, batch 8"
    assert (gpu.kind, gpu.gpu_index, Target().kind) == ("cuda", 0, "cpu")


@given(st.integers(0, 999))
def test_a_gpu_has_a_number(index):
    target = Target(device=f"cuda:{index}", backend="torch")
    assert target.gpu_index == index
    assert Target.model_validate_json(target.model_dump_json()) == target


@pytest.mark.parametrize(
    "words", ["cuda:", "cuda:-1", "cuda:1000", "CUDA", "gpu", " cpu", "cpu:0", "cuda:0 "]
)
def test_other_words_are_no_device(words):
    with pytest.raises(UserError, match="cannot be measured"):
        make(device=words, backend="torch")


def test_every_backend_of_a_gpu_is_tried(monkeypatch):
    monkeypatch.setattr("nat2deploy.target.check_visible", lambda index: None)

    def backends(precision):
        return [target.backend for target in make_targets("cuda", precision, 1, 1)]

    assert backends("fp16") == ["torch", "onnxruntime", "tensorrt", "tensorrt-rtx"]
    assert backends("bf16") == ["torch"]
    assert backends("int8") == ["tensorrt", "tensorrt-rtx"]


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(
        UserError, match=r"device cuda:0: PyTorch \S+ sees no GPU here; install NVIDIA's driver"
    ):
        make(device="cuda", backend="torch")


def test_the_fingerprint_describes_this_machine():
    here = fingerprint()
    assert lasting_facts(here.model_dump()) == lasting_facts(fingerprint().model_dump())
    assert here.cpu
    assert here.cores == os.cpu_count()
    optional = {"openvino"} if find_spec("openvino") else set()
    assert set(here.libraries) == {"onnxruntime", "torch", "numpy"} | optional
    assert all(version[0].isdigit() for version in here.libraries.values())
    assert Fingerprint.model_validate_json(here.model_dump_json()) == here
    assert here.gpu is None


def test_tables_from_before_gpus_are_read(repository):
    table = json.loads((repository / "latency_tables" / "nano-ee-d-28-32px-x86-1-thread.json").read_text())
    assert "gpu" not in table["fingerprint"]
    assert Fingerprint.model_validate(table["fingerprint"]).gpu is None
    assert Target.model_validate(table["target"]) == Target()


GPU = Gpu(name="NVIDIA H200", compute_capability="9.0", memory_bytes=150_000_000_000, max_clock_mhz=1980)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"driver": "580.1", "clock_mhz": 300, "clocks_locked": True}, True),
        ({"max_clock_mhz": None}, True),
        ({"max_clock_mhz": 1500}, False),
        ({"name": "NVIDIA H100"}, False),
        ({"compute_capability": "8.9"}, False),
        ({"memory_bytes": 80_000_000_000}, False),
        ({"memory_bytes": 149_500_000_000}, True),  # another driver keeps more of it
    ],
)
def test_latencies_compare_where_the_gpu_agrees_too(change, same):
    first, second = (
        fingerprint().model_copy(update={"gpu": gpu}) for gpu in (GPU, GPU.model_copy(update=change))
    )
    assert first.same_machine(second) is same
    assert second.same_machine(first) is same
    assert not first.same_machine(fingerprint())
    assert not fingerprint().same_machine(first)


def test_the_words_for_two_machines_say_what_is_different():
    plain = Fingerprint(cpu="EPYC", flags=["avx2"], cores=2, governor="unknown", system="", libraries={})
    vnni = plain.model_copy(update={"flags": ["avx2", "avx512_vnni"]})
    assert plain.told_apart(vnni) == ("EPYC, 2 cores, without avx512_vnni", "EPYC, 2 cores, with avx512_vnni")
    amx = plain.model_copy(update={"flags": ["avx2", "amx_int8"]})
    assert amx.told_apart(vnni) == ("EPYC, 2 cores, with amx_int8", "EPYC, 2 cores, with avx512_vnni")
    assert plain.told_apart(plain.model_copy(update={"cores": 4})) == ("EPYC, 2 cores", "EPYC, 4 cores")
    slow = GPU.model_copy(update={"max_clock_mhz": 1500, "memory_bytes": 80})
    one, two = (plain.model_copy(update={"gpu": gpu}) for gpu in (GPU, slow))
    assert two.told_apart(one)[0] == "EPYC, 2 cores, NVIDIA H200, 80 bytes of memory, at most 1500 MHz"
    assert one.told_apart(one)[0] == str(one)


def test_what_is_steady_leaves_the_current_clock_out():
    one, other = (
        fingerprint().model_copy(
            update={"gpu": GPU.model_copy(update={"clock_mhz": mhz, "clocks_locked": mhz == 1})}
        )
        for mhz in (1, 2)
    )
    assert one.steady() == other.steady()
    assert one.steady()["gpu"]["name"] == "NVIDIA H200"
    assert str(one).endswith("cores, NVIDIA H200")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"libraries": {"torch": "1"}}, True),
        ({"governor": "powersave"}, True),
        ({"cpu": "another"}, False),
        ({"flags": ["avx1024"]}, False),
        ({"cores": 3000}, False),
    ],
)
def test_latencies_compare_where_processor_and_cores_agree(change, same):
    here = fingerprint()
    assert here.same_machine(here.model_copy(update=change)) is same
