"""Measuring on a GPU: what is refused without one, and the whole flow with one."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nat2deploy.clock_state import WorkingClock
from nat2deploy.cost.network_choice import Network
from nat2deploy.cost.table import load_table, save_table
from nat2deploy.errors import UserError
from nat2deploy.measure import device as device_module
from nat2deploy.measure.backends import choose_backend
from nat2deploy.measure.device import LocalDevice
from nat2deploy.measure.environment import pinned_threads
from nat2deploy.measure.groups import Block, Group, Overhead, WholeNetwork
from nat2deploy.measure.interleave import measure_interleaved
from nat2deploy.measure.networks import measure_engines
from nat2deploy.measure.partial_profile import PartialProfile, partial_target
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.measure.prepared import random_input
from nat2deploy.measure.profiler import profile_space
from nat2deploy.measure.validation import validate_table
from nat2deploy.measure.workloads import compile_candidate, prepare_candidate, reference_workload
from nat2deploy.space.lowering import every_signature, plan_network
from nat2deploy.target import PRECISIONS, Fingerprint, Gpu, Target, make_targets

GPU_TARGETS = [
    Target(device="cuda", backend=backend, precision=precision)
    for backend, precisions in PRECISIONS["cuda"].items()
    for precision in precisions
]
TORCH = Target(device="cuda", backend="torch", precision="fp16")


def test_bytes_of_both_signs_are_drawn():
    network = SimpleNamespace(input_shape=(1, 4, 64, 64), input_type=np.int8)
    drawn = random_input(network, np.random.default_rng(0))
    assert (drawn.dtype, drawn.shape) == (np.int8, (1, 4, 64, 64))
    assert (drawn.min(), drawn.max()) == (-128, 127)


def test_a_gpu_and_a_cpu_are_not_measured_together():
    engines = {
        name: SimpleNamespace(target=Target(device=name, backend="torch")) for name in ("cpu", "cuda:1")
    }
    with pytest.raises(UserError, match="networks on cpu and cuda:1 cannot be measured together"):
        measure_engines(engines, seed=0, time_limit_s=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_says_why_each_backend_is_left_out(tiny_space):
    targets = [target for target in GPU_TARGETS if target.precision == "fp16"]
    with pytest.raises(UserError, match=r"no backend can run this space's networks here: .*sees no GPU here"):
        choose_backend(tiny_space, targets, seed=0, time_limit_s=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_profile_ends_before_it_begins(tiny_space):
    plan = ProfilePlan(tiny_space, TORCH, calibration_networks=8, held_out_networks=8)
    with pytest.raises(UserError, match="sees no GPU here"):
        profile_space(plan, LocalDevice(TORCH))


def test_the_memory_and_the_load_are_those_of_the_gpu(monkeypatch):
    monkeypatch.setattr(device_module, "gpu_memory_bytes", lambda index: 1000 + index)
    monkeypatch.setattr(device_module, "busy_warning", lambda index: f"cuda:{index} is busy")
    monkeypatch.setattr(device_module, "load_warning", lambda: None)
    device = LocalDevice(Target(device="cuda:3", backend="torch"))
    assert device.memory_bytes() == 1003
    assert device.warning() == "cuda:3 is busy"
    assert LocalDevice(Target()).memory_bytes() != 1003
    assert LocalDevice(Target()).warning() is None


def test_a_group_ends_with_the_clock_of_the_gpu_while_it_works(monkeypatch):
    """Everything but the GPU is real: its driver is asked while the reference workload runs."""
    ran = threading.Event()

    def clock_at_work(index):
        ran.clear()
        assert ran.wait(30), "the GPU was left idle"
        return {"gpu_mhz": 1700 + index, "gpu_slowed": ["its power limit"]}

    cpu = Target(backend="torch")
    reference = reference_workload(cpu)

    def work():
        reference()
        ran.set()

    monkeypatch.setattr(device_module, "clock_at_work", clock_at_work)
    monkeypatch.setattr(device_module, "reference_workload", lambda target: work)
    monkeypatch.setattr(
        device_module, "prepare_candidate", lambda one, target, rng: prepare_candidate(one, cpu, rng)
    )
    group = Group("blocks", "0" * 16, {"a": Overhead()}, seed=0, precision=0.5, time_limit_s=0.2)
    found = LocalDevice(Target(device="cuda:2", backend="torch")).measure(group, lambda share, text: None)
    before, after = (WorkingClock.model_validate(clock) for clock in found.clocks)
    assert (before.gpu_mhz, after.gpu_mhz, after.gpu_slowed) == (None, 1702, ("its power limit",))
    assert before.governor == after.governor


def test_a_partial_profile_is_known_again_at_another_clock(tiny_space, tmp_path, monkeypatch):
    facts = {"name": "NVIDIA Some", "compute_capability": "8.9", "memory_bytes": 1 << 34}
    here = LocalDevice(Target()).fingerprint()

    def at(mhz) -> Fingerprint:
        return here.model_copy(update={"gpu": Gpu(**facts, clock_mhz=mhz)})

    plan = ProfilePlan(tiny_space, TORCH, calibration_networks=8, held_out_networks=8)
    path = tmp_path / "x.partial"
    PartialProfile(settings=plan.settings(at(300)), chunks=[]).save(path)
    monkeypatch.setattr("nat2deploy.measure.partial_profile.fingerprint", lambda device: at(1980))
    assert partial_target(path, tiny_space, [Target(), TORCH]) == TORCH
    monkeypatch.setattr("nat2deploy.measure.partial_profile.fingerprint", lambda device: here)
    assert partial_target(path, tiny_space, [TORCH]) is None
    assert partial_target(path, tiny_space, []) is None


@pytest.mark.gpu
@pytest.mark.parametrize("target", GPU_TARGETS, ids=str)
def test_every_kind_of_block_runs(tiny_space, needs_backend, target):
    needs_backend(target)
    kinds = {s.kind: s for s in every_signature(tiny_space, (10,))}
    with pinned_threads(target):
        for candidate in (Overhead(), *(Block(signature, 0) for signature in kinds.values())):
            assert prepare_candidate(candidate, target, np.random.default_rng(0))() is None
        assert reference_workload(target)() is None


@pytest.mark.gpu
def test_the_backends_of_a_gpu_are_ranked(tiny_space):
    choice = choose_backend(tiny_space, make_targets("cuda", "fp16", 1, 1), seed=0, time_limit_s=1)
    assert TORCH in [one.target for one in choice.measured]
    assert all("\n" not in reason for reason in choice.left_out.values())


@pytest.mark.gpu
def test_a_replay_is_faster_than_launching_each_kernel(tiny_space):
    largest = tiny_space.largest(24, 1.0)
    candidate = WholeNetwork(Network(largest, 10, plan_network(tiny_space, largest, 10)), 0)
    engine = compile_candidate(candidate, TORCH)
    images = random_input(engine, np.random.default_rng(0))
    replay, module, given = engine.prepare(images), engine._module, engine._on_device(images)

    @torch.inference_mode()
    def eager():
        module(given)
        torch.cuda.synchronize()

    found = measure_interleaved({"replay": replay, "eager": eager}, seed=0, time_limit_s=1).summaries
    assert found["replay"].median_ms < 0.5 * found["eager"].median_ms


@pytest.mark.gpu
def test_a_tiny_space_is_profiled_and_certified(tiny_space, tmp_path):
    space = tiny_space.restrict(resolutions=(16,))
    plan = ProfilePlan(
        space, TORCH, precision=0.1, time_limit_s=20, calibration_networks=8, held_out_networks=8
    )
    table = profile_space(plan, LocalDevice(TORCH))
    assert table.target == TORCH
    assert table.fingerprint.gpu.name == torch.cuda.get_device_name(0)
    if table.fingerprint.gpu.clock_mhz is not None:  # not the clock of an idle one
        assert table.fingerprint.gpu.clock_mhz > 0.4 * table.fingerprint.gpu.max_clock_mhz
    assert table.noise_floor < 0.2
    assert table.certificate is not None
    save_table(table, tmp_path / "table.json")
    assert load_table(tmp_path / "table.json") == table
    certificate, _ = validate_table(
        table, space, networks=8, seed=1, precision=0.1, time_limit_s=5, progress=None
    )
    assert certificate.networks == 8
